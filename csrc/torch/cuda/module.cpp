// Importing adaptau_ext._cuda loads the library, whose static initialiser registers the CUDA
// operators with PyTorch; the module itself is empty. Limited API: see ../module.cpp.
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include "operators.h"

STABLE_TORCH_LIBRARY_IMPL(adaptau, CUDA, m) { adaptau::register_cuda_operators(m); }

PyMODINIT_FUNC PyInit__cuda(void) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                   "_cuda",
                                   "CUDA kernels of torch.ops.adaptau; import registers them.",
                                   -1,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr};
  return PyModule_Create(&definition);
}
