// Importing adaptau_ext._C loads the library, whose static initialisers register the operators with
// PyTorch; the module itself is empty. Limited API: one binary for every CPython from 3.10.
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

// NOLINTNEXTLINE(bugprone-reserved-identifier,cert-dcl*): the name that Python looks for
PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                   "_C",
                                   "Operators of torch.ops.adaptau; import registers them.",
                                   -1,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr};
  return PyModule_Create(&definition);
}
