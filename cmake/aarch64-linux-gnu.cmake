# Cross-compiles for aarch64 and runs the tests under qemu-user; Debian's packages are
# g++-aarch64-linux-gnu and qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)  # no shared libraries, so qemu need not be told where they are
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
