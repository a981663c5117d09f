// What the operators are called and take, for every device; adaptau_ext/ops.py wraps each of them
// and documents its meaning. Gradients that were not asked for come back as empty tensors.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(adaptau, m) {
  m.def(
      "fused_adaptive_softmax(Tensor u, Tensor i, Tensor tau, Tensor? target=None, "
      "Tensor? positive_tau=None, Tensor? log_q=None, Tensor? item_ids=None, "
      "Tensor? exclude_indptr=None, Tensor? exclude_indices=None, str denominator=\"all\", "
      "str normalize=\"both\", str precision=\"float32\", int workspace_mib=64, "
      "str reduction=\"mean\", bool unit_loss=False, int gradients=0) -> "
      "(Tensor loss, Tensor unit_loss, Tensor grad_u, Tensor grad_i, Tensor grad_tau, "
      "Tensor grad_positive_tau, Tensor grad_log_q)");
  m.def(
      "fused_adaptive_softmax_backward(Tensor grad_loss, Tensor u, Tensor i, Tensor tau, "
      "Tensor? target, Tensor? positive_tau, Tensor? log_q, Tensor? item_ids, "
      "Tensor? exclude_indptr, Tensor? exclude_indices, str denominator, str normalize, "
      "str precision, int workspace_mib, int gradients) -> (Tensor grad_u, Tensor grad_i, Tensor "
      "grad_tau, "
      "Tensor grad_positive_tau, Tensor grad_log_q)");
  m.def(
      "sampled_adaptive_softmax(Tensor user_table, Tensor item_table, Tensor? users, "
      "Tensor positives, Tensor tau, Tensor? positive_tau=None, Tensor? negatives=None, "
      "int n_negatives=0, SymInt seed=0, float item_l2=0.0, Tensor? log_q=None, str "
      "denominator=\"negatives\", "
      "str normalize=\"both\", str reduction=\"mean\", bool unit_loss=False, "
      "int gradients=0) -> (Tensor loss, Tensor unit_loss, Tensor grad_user_table, "
      "Tensor grad_item_table, Tensor grad_tau, Tensor grad_positive_tau, Tensor grad_log_q)");
  m.def(
      "sampled_adaptive_softmax_backward(Tensor grad_loss, Tensor user_table, Tensor item_table, "
      "Tensor? users, Tensor positives, Tensor tau, Tensor? positive_tau, Tensor? negatives, "
      "int n_negatives, SymInt seed, float item_l2, Tensor? log_q, str denominator, str normalize, "
      "int gradients) -> "
      "(Tensor grad_user_table, Tensor grad_item_table, Tensor grad_tau, Tensor grad_positive_tau, "
      "Tensor grad_log_q)");
  m.def("sampled_scores(Tensor u, Tensor i, Tensor items, str normalize=\"none\") -> Tensor");
  m.def(
      "sampled_scores_backward(Tensor grad, Tensor u, Tensor i, Tensor items, str normalize, "
      "int gradients) -> (Tensor grad_u, Tensor grad_i)");
  m.def(
      "topk(Tensor u, Tensor i, int k, Tensor? exclude_indptr=None, Tensor? exclude_indices=None, "
      "str normalize=\"none\", Tensor? item_bytes=None, Tensor? item_meta=None, "
      "Tensor? item_centre=None) -> (Tensor scores, Tensor ids)");
  m.def("unit_rows(Tensor i) -> Tensor");
  m.def(
      "pack_items(Tensor i, Tensor? centre=None) -> (Tensor item_bytes, Tensor item_meta, "
      "Tensor item_centre)");
  m.def(
      "ranks(Tensor u, Tensor i, Tensor target_indptr, Tensor target_indices, "
      "Tensor? exclude_indptr=None, Tensor? exclude_indices=None, str normalize=\"none\", "
      "Tensor? target_scores=None, int first_item=0) -> Tensor");
  m.def(
      "target_scores(Tensor u, Tensor i, Tensor target_indptr, Tensor target_indices, "
      "str normalize=\"none\") -> Tensor");
  m.def(
      "bipartite_graph(Tensor indptr, Tensor indices, int n_items) -> (Tensor user_indptr, "
      "Tensor user_indices, Tensor item_indptr, Tensor item_indices)");
  m.def(
      "renumber_side(Tensor indptr, Tensor indices, Tensor order, Tensor other_order) -> (Tensor "
      "indptr, Tensor indices)");
  m.def(
      "propagate(Tensor x_users, Tensor x_items, Tensor user_indptr, Tensor user_indices, "
      "Tensor item_indptr, Tensor item_indices, Tensor? user_order, Tensor? item_order, "
      "int n_layers, bool mean=True, Tensor? users=None, Tensor? items=None, "
      "Tensor? given_users=None, Tensor? given_items=None, int dropout=0, SymInt seed=0) -> "
      "(Tensor users, Tensor items)");
  m.def(
      "propagate_layers(Tensor x_users, Tensor x_items, Tensor user_indptr, Tensor user_indices, "
      "Tensor item_indptr, Tensor item_indices, Tensor? user_order, Tensor? item_order, "
      "int n_layers, Tensor? users=None, Tensor? items=None, int dropout=0, SymInt seed=0) -> "
      "(Tensor users, Tensor items)");
  m.def(
      "propagate_layers_backward(Tensor grad_users, Tensor grad_items, Tensor user_indptr, "
      "Tensor user_indices, Tensor item_indptr, Tensor item_indices, Tensor? user_order, "
      "Tensor? item_order, int n_layers, Tensor? users=None, Tensor? items=None, int dropout=0, "
      "SymInt seed=0) -> (Tensor grad_x_users, Tensor grad_x_items)");
  m.def(
      "draw_negatives(Tensor like, int n_rows, int n_negatives, int n_items, SymInt seed) -> Tensor");
  m.def("dropout(Tensor x, Tensor? rows, int first_row, int steps, SymInt seed) -> Tensor");
  m.def(
      "adam_rows_(Tensor(a!) parameter, Tensor(b!) mean, Tensor(c!) square, Tensor(d!) last_step, "
      "Tensor? rows, Tensor? gradient, int step, float lr, float beta1, float beta2, "
      "float epsilon) -> ()");
  m.def("cpu_level() -> str");
  m.def("fma_peak(float seconds=0.02) -> float");
}
