/* The mixture loss as a node of torch's graph, in C++: what an ordinary call on the CPU takes instead of an autograd function in Python,
 * which costs more than the kernel at the published size.
 *
 * Offers Python `mixture_kl` and `dense_mixture_kl`, which return None for whatever is not ordinary: other types of tensor, devices or
 * layouts, shapes that do not fit, modes, tracing and transforms. `ops/mixture.py` then finds the way, or the words. The entry points of
 * the C library, found in the one that cffi has loaded, come through `bind`. Left out: CUDA and second derivatives.
 */
#include <mutex>

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/utils/object_ptr.h>

#include "library.h"

namespace {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

/* A node as this torch's graph holds it: versions differ in who counts the references. */
template <typename T, typename... Arguments> auto made(Arguments&&... arguments) {
    using Held = std::remove_cv_t<std::remove_reference_t<decltype(std::declval<torch::autograd::Edge>().function)>>;
    if constexpr (std::is_same_v<Held, std::shared_ptr<Node>>)
        return std::shared_ptr<T>(new T(std::forward<Arguments>(arguments)...), [](T* node) { deleteNode(node); });
    else
        return c10::make_intrusive<T>(std::forward<Arguments>(arguments)...);
}

struct MixtureKLBackward : Node {
    std::array<SavedVariable, INPUTS> inputs;
    SavedVariable assignment, cluster_kl, statistics;

    std::string name() const override { return "MixtureKLBackward"; }

    void release_variables() override {
        std::lock_guard<std::mutex> lock(mutex_);
        for (auto& kept : inputs) kept.reset_data();
        for (auto* kept : {&assignment, &cluster_kl, &statistics}) kept->reset_data();
    }

    variable_list apply(variable_list&& g) override {
        std::lock_guard<std::mutex> lock(mutex_);
        for (auto& upstream : g)
            if (upstream.defined()) upstream = upstream.resolve_neg(); /* which a mark alone may do */
        if (!g[0].defined() && !g[1].defined()) return variable_list(5);
        Inputs x;
        for (int i = 0; i < INPUTS; i++) {
            x[i] = inputs[i].unpack();
            if (x[i].defined()) x[i] = x[i].contiguous(); /* hooks on what is saved may lay it out anew */
        }
        Outputs y{{}, {}, assignment.unpack().contiguous(), cluster_kl.unpack().contiguous(), statistics.unpack().contiguous()};
        Call call(x);
        Gradients d;
        {
            at::AutoGradMode off(false);
            const int of[] = {M, V, E, F, LOGITS};
            for (int i = 0; i < 5; i++)
                if (x[of[i]].defined()) d[i] = at::detail::empty_cpu(x[of[i]].sizes(), x[of[i]].options());
            if (call.twice)
                backward<double>(entry.catvae_mixture_kl_backward_f64, entry.catvae_dense_kl_backward_f64, call, x, y, g[0], g[1], d);
            else
                backward<float>(entry.catvae_mixture_kl_backward_f32, entry.catvae_dense_kl_backward_f32, call, x, y, g[0], g[1], d);
        }
        variable_list found(d.begin(), d.end());
        if (at::GradMode::is_enabled()) refuse_second(found, x, g);
        return found;
    }

    /* Under create_graph=True gradients remember what they were made from, only to refuse differentiation: never a silent zero. */
    static void refuse_second(variable_list& found, const Inputs& x, const variable_list& g) {
        if (!torch::autograd::compute_requires_grad(x[M], x[V], x[E], x[F], x[LOGITS], g[0], g[1])) return;
        auto refusal = made<torch::autograd::Error>(
            "what catvae.kernels computes is once differentiable: second derivatives are not implemented",
            torch::autograd::collect_next_edges(x[M], x[V], x[E], x[F], x[LOGITS], g[0], g[1]));
        for (auto& gradient : found)
            if (gradient.defined()) torch::autograd::set_history(gradient, refusal);
    }
};

Outputs joined(const Inputs& x) {
    Call call(x);
    auto options = x[PRIOR].options();
    auto empty = [&](at::IntArrayRef shape) { return at::detail::empty_cpu(shape, options); };
    Outputs y{empty({}), empty({}), empty({call.N, call.K}), empty({call.N, call.K}), empty({3, call.N})};
    if (call.twice)
        forward<double>(entry.catvae_mixture_kl_forward_f64, entry.catvae_dense_kl_forward_f64, call, x, y);
    else
        forward<float>(entry.catvae_mixture_kl_forward_f32, entry.catvae_dense_kl_forward_f32, call, x, y);
    if (torch::autograd::compute_requires_grad(x[M], x[V], x[E], x[F], x[LOGITS])) {
        auto node = made<MixtureKLBackward>();
        node->set_next_edges(torch::autograd::collect_next_edges(x[M], x[V], x[E], x[F], x[LOGITS]));
        for (int i = 0; i < INPUTS; i++) node->inputs[i] = SavedVariable(x[i], false);
        node->assignment = SavedVariable(y.assignment, false);
        node->cluster_kl = SavedVariable(y.cluster_kl, false);
        node->statistics = SavedVariable(y.statistics, false);
        torch::autograd::set_history(y.kl, node);
        torch::autograd::set_history(y.neg_entropy, node);
    }
    return y;
}

/* Whether nothing but this process's memory is behind a tensor, row by row: no device, view of negated numbers, batch or tangent. */
bool plain(const Tensor& x) {
    static const auto allowed =
        c10::DispatchKeySet({c10::DispatchKey::CPU, c10::DispatchKey::AutogradCPU, c10::DispatchKey::ADInplaceOrView,
                             c10::DispatchKey::AutocastCPU}).raw_repr();
    return !(x.key_set().raw_repr() & ~allowed) && x.is_contiguous() && !torch::autograd::isFwGradDefined(x);
}

/* Whether C may compute it, on what `checks.py` accepts without converting anything. */
bool ordinary(const Inputs& x) {
    bool dense = !x[E].defined();
    if (!(c10::impl::tls_local_dispatch_key_set().included_ - c10::default_included_set).empty()) return false; /* modes, transforms */
    for (auto& input : x)
        if (input.defined() && !plain(input)) return false;
    auto real = x[PRIOR].scalar_type(), type = x[M].scalar_type();
    bool half = real == at::kFloat && (type == at::kHalf || type == at::kBFloat16);
    if ((real != at::kFloat && real != at::kDouble) || (type != real && !half)) return false;
    if (x[V].scalar_type() != type || x[LOGITS].scalar_type() != type || x[M].dim() != (dense ? 3 : 2) || x[PRIOR].dim() != 2) return false;
    int64_t N = x[M].size(0), K = x[PRIOR].size(0), D = x[PRIOR].size(1), most = 1 << 28;
    if (K < 1 || D < 1 || N > most || K > most || D > most || N * K > (int64_t{1} << 56) / D) return false;
    auto same = [&](int i, at::IntArrayRef shape) { return x[i].sizes() == shape && (i == LOGITS || x[i].scalar_type() == real); };
    if (!dense && !(same(E, {K, D}) && same(F, {K, D}))) return false;
    if (x[M].sizes() != (dense ? at::IntArrayRef({N, K, D}) : at::IntArrayRef({N, D})) || x[V].sizes() != x[M].sizes()) return false;
    if (x[WEIGHT].defined() && (!same(WEIGHT, {N}) || x[WEIGHT].requires_grad())) return false;
    return same(LOGITS, {N, K}) && !x[PRIOR].requires_grad();
}

/* (kl, neg_entropy, assignment, cluster_kl), or None where the call is not an ordinary one. `places` says which input each argument is. */
template <size_t arity> PyObject* called(const std::array<int, arity>& places, PyObject* const* arguments, Py_ssize_t given) {
    HANDLE_TH_ERRORS
    TORCH_CHECK_TYPE(given == static_cast<Py_ssize_t>(arity), arity, " arguments are needed: got ", given);
    Inputs x;
    for (size_t i = 0; i < arity; i++) {
        if (places[i] == WEIGHT && arguments[i] == Py_None) continue;
        if (!THPVariable_CheckExact(arguments[i])) Py_RETURN_NONE;
        x[places[i]] = THPVariable_Unpack(arguments[i]);
    }
    if (!entry.catvae_status_string || !ordinary(x)) Py_RETURN_NONE; /* nothing is bound before `bind` */
    Outputs y;
    {
        pybind11::gil_scoped_release released;
        y = joined(x);
    }
    THPObjectPtr result(PyTuple_New(4));
    if (!result) throw python_error();
    Tensor* const found[] = {&y.kl, &y.neg_entropy, &y.assignment, &y.cluster_kl};
    for (int i = 0; i < 4; i++) PyTuple_SET_ITEM(result.get(), i, THPVariable_Wrap(*found[i]));
    return result.release();
    END_HANDLE_TH_ERRORS
}

PyObject* mixture_kl(PyObject*, PyObject* const* arguments, Py_ssize_t given) {
    return called<7>({M, V, E, F, PRIOR, LOGITS, WEIGHT}, arguments, given);
}

PyObject* dense_mixture_kl(PyObject*, PyObject* const* arguments, Py_ssize_t given) {
    return called<5>({M, V, PRIOR, LOGITS, WEIGHT}, arguments, given);
}

PyObject* bind(PyObject*, PyObject* const* addresses, Py_ssize_t given) {
    Py_ssize_t i = 0;
#define X(name)                                                                                                                          \
    if (i < given) entry.name = reinterpret_cast<decltype(entry.name)>(PyLong_AsVoidPtr(addresses[i]));                                  \
    i++;
    ENTRIES(X)
#undef X
    if (!PyErr_Occurred() && given != i) PyErr_Format(PyExc_TypeError, "%zd addresses are needed: got %zd", i, given);
    if (PyErr_Occurred()) return nullptr;
    Py_RETURN_NONE;
}

PyObject* use_one_thread(PyObject*, PyObject*) {
    serial = true;
    Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"mixture_kl", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(mixture_kl)), METH_FASTCALL, nullptr},
    {"dense_mixture_kl", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(dense_mixture_kl)), METH_FASTCALL, nullptr},
    {"bind", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(bind)), METH_FASTCALL, "Addresses of `needs`, in its order."},
    {"use_one_thread", use_one_thread, METH_NOARGS, "From now on, in this process."},
    {nullptr, nullptr, 0, nullptr},
};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "_node", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

} // namespace

PyMODINIT_FUNC PyInit__node() {
    PyObject* made = PyModule_Create(&module);
#define X(name) "," #name
    const char* needs = "" ENTRIES(X);
#undef X
    if (made && (PyModule_AddStringConstant(made, "needs", needs + 1) || PyModule_AddIntConstant(made, "abi", CATVAE_ABI))) Py_CLEAR(made);
    return made;
}
