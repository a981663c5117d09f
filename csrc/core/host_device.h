// Functions that CPU code and CUDA kernels share.
#pragma once

#if defined(__CUDACC__)
#define ADAPTAU_HOST_DEVICE __host__ __device__
#else
#define ADAPTAU_HOST_DEVICE
#endif
