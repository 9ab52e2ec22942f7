import math

import pytest
import torch
import torch.nn.functional as F

from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork, Readout, SiblingNetwork
from rhm import InvalidInput, RandomHierarchyModel, Task

TASK = Task(4, 3, 2, 2, 3)
VARIANTS = {
    "hierarchical": HierarchicalNetwork,
    "locally connected": LocallyConnectedNetwork,
    "siblings": SiblingNetwork,
    "dense": DenseNetwork,
}
PHI = {"relu": torch.relu, "tanh": torch.tanh, "linear": lambda a: a}
BATCH, REPLICAS = 5, 3


def close(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def build(variant, task=TASK, seeds=range(REPLICAS), **sizes):
    """A network in float64 whose biases are not zero."""
    network = VARIANTS[variant](**{"width": 7, **sizes}).build(task, torch.tensor(list(seeds))).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in network.layers:
            one_replica = torch.randn(layer.bias_RG1E.shape[1:], generator=generator, dtype=torch.float64)
            layer.bias_RG1E.copy_(one_replica * (1 + torch.tensor(list(seeds)).view(-1, 1, 1, 1)))
    return network


def tokens(task=TASK, replicas=REPLICAS, batch=BATCH):
    model = RandomHierarchyModel(task.v, task.n, task.m, task.s, task.L, seeds=range(replicas))
    derivation = model.sample(torch.arange(batch))
    return derivation.x_RBD, derivation.y_RB


def whitened(x_RBD, v):
    p = 1 / v
    return (F.one_hot(x_RBD.long(), v).double() - p) / math.sqrt(p * (1 - p))


def projected(u, C):
    return math.sqrt(C) * F.normalize(u, dim=-1)


def reference(variant, layer, phi, h_RBDC, patch):
    """A layer's output by convolution, by one linear map a position or a place, or by one for all: replica after replica."""
    out = []
    for r, h_BDC in enumerate(h_RBDC):
        weight, bias = layer.weight_RGFE[r], layer.bias_RG1E[r]
        projection = None if layer.projection_RGEC is None else layer.projection_RGEC[r]
        if variant == "hierarchical":
            kernel = weight[0].unflatten(0, (patch, -1)).permute(2, 1, 0)  # [units, channels, patch]
            units = phi(F.conv1d(h_BDC.transpose(1, 2), kernel, bias[0, 0], stride=patch)).transpose(1, 2)
            out.append(units if projection is None else projected(F.linear(units, projection[0].T), projection.shape[-1]))
            continue
        if variant == "dense":
            spans = [h_BDC.flatten(1)]
        else:
            spans = [h_BDC[:, at : at + patch].reshape(len(h_BDC), -1) for at in range(0, h_BDC.shape[1], patch)]
        if variant == "siblings":  # the weights of one place stand below those of another; projection and bias are shared
            places = weight.shape[1] // spans[0].shape[1]
            weight = torch.stack([weight[0].chunk(places)[d % places] for d in range(len(spans))])
            bias = bias.expand(len(spans), 1, -1)
            projection = None if projection is None else projection.expand(len(spans), -1, -1)
        each = []
        for group, span in enumerate(spans):
            units = phi(torch.einsum("bf,fe->be", span, weight[group]) + bias[group, 0])
            each.append(units if projection is None else projected(units @ projection[group], projection.shape[-1]))
        out.append(torch.stack(each, 1))
    return torch.stack(out)


LAYER_CASES = [
    pytest.param(variant, bottleneck, activation, id=f"{variant}-{bottleneck}-{activation}")
    for variant in VARIANTS
    for bottleneck in (None, 4)
    for activation in PHI
]


# ---------------------------------------------------------------- forward and backward


@pytest.mark.parametrize("task", [TASK, Task(3, 2, 2, 3, 2)], ids=["s=2", "s=3"])
@pytest.mark.parametrize(("variant", "bottleneck", "activation"), LAYER_CASES)
def test_layers_compute_the_reference(variant, bottleneck, activation, task):
    network = build(variant, task, bottleneck=bottleneck, activation=activation)
    x_RBD, _ = tokens(task)
    h = whitened(x_RBD, task.v)
    close(network.encode(x_RBD), h)
    states = network(x_RBD)
    assert len(states) == len(network) == task.L
    for k, (layer, state) in enumerate(zip(network.layers, states, strict=True)):
        patch = layer.patch if variant != "dense" else 1
        h = reference(variant, layer, PHI[activation], h, patch)
        close(state.out_RBDC, h)
        close(state.units_RGME, PHI[activation](state.pre_RGME))
        assert h.shape[2] == network.positions[k] and h.shape[3] == layer.out_channels
        if layer.projection_RGEC is not None:
            lengths, alive = state.out_RBDC.square().mean(-1), (state.out_RBDC != 0).any(-1)
            close(lengths, alive.double())  # where all units are silent there is no direction to hand on
            assert alive.double().mean() > 0.8
    assert network.layers[-1].projection_RGEC is None
    assert all((layer.projection_RGEC is None) == (bottleneck is None) for layer in network.layers[:-1])


@pytest.mark.parametrize("task", [TASK, Task(3, 2, 2, 3, 2)], ids=["s=2", "s=3"])
@pytest.mark.parametrize(("variant", "bottleneck", "activation"), LAYER_CASES)
def test_a_layers_backward_is_its_gradient(variant, bottleneck, activation, task):
    network = build(variant, task, bottleneck=bottleneck, activation=activation)
    generator = torch.Generator().manual_seed(1)
    states = network(tokens(task)[0])
    below = network.encode(tokens(task)[0])
    for layer, state in zip(network.layers, states, strict=True):
        h = below.detach().requires_grad_()
        out = reference(variant, layer, PHI[activation], h, layer.patch)
        signal = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        names, parameters = zip(*layer.named_parameters(), strict=True)
        *grads, down = torch.autograd.grad((out * signal).sum(), [*parameters, h])
        with torch.no_grad():
            update, delta = layer.backward(state, signal)
            handed = layer.hand_down(delta, BATCH)
        assert set(update) == set(names)
        for name, grad in zip(names, grads, strict=True):
            assert update[name].shape == grad.shape
            close(update[name], grad)
        close(handed, down)
        below = state.out_RBDC


@pytest.mark.parametrize(("variant", "bottleneck", "activation"), LAYER_CASES)
def test_backward_through_the_stack_is_backprop_of_each_replica(variant, bottleneck, activation):
    network = build(variant, bottleneck=bottleneck, activation=activation)
    x_RBD, y_RB = tokens()
    features = network.positions[-1] * network.layers[-1].out_channels
    readout = Readout(torch.arange(REPLICAS), features, TASK.n).double()
    h, loss = whitened(x_RBD, TASK.v), 0.0
    for layer in network.layers:
        h = reference(variant, layer, PHI[activation], h, layer.patch)
    for r in range(REPLICAS):
        loss = loss + F.cross_entropy(h[r].flatten(1) @ readout.weight_RFN[r] + readout.bias_R1N[r, 0], y_RB[r].long())
    modules = [*network.layers, readout]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    expected = iter(torch.autograd.grad(loss, parameters))
    with torch.no_grad():
        states = network(x_RBD)
        top = readout(states[-1].out_RBDC, y_RB)
        updates, signal = [readout.backward(top)], readout.hand_down(top, states[-1].out_RBDC.shape)
        for layer, state in zip(list(network.layers)[::-1], states[::-1], strict=True):
            update, delta = layer.backward(state, signal)
            signal = layer.hand_down(delta, BATCH)
            updates.insert(0, update)
    close(top.loss_R.sum(), loss.detach())
    for module, update in zip(modules, updates, strict=True):
        for name, _ in module.named_parameters():
            close(update[name], next(expected))


@pytest.mark.parametrize("activation", PHI)
def test_the_mask_is_the_derivative_of_the_activation(activation):
    network = build("hierarchical", activation=activation)
    for layer, state in zip(network.layers, network(tokens()[0]), strict=True):
        pre = state.pre_RGME.detach().requires_grad_()
        (slope,) = torch.autograd.grad(PHI[activation](pre).sum(), pre)
        close(layer.mask(state), slope)


@pytest.mark.parametrize("variant", VARIANTS)
def test_unfold_undoes_fold(variant):
    for layer, positions in zip(build(variant).layers, [8, 4, 2], strict=True):
        h_RBDC = torch.arange(float(REPLICAS * BATCH * positions * 6)).view(REPLICAS, BATCH, positions, 6)
        if variant == "dense" and layer.patch == 1:
            h_RBDC = h_RBDC[:, :, :1]
        folded = layer.fold(h_RBDC)
        places = layer.places if variant == "siblings" else 1
        assert folded.shape[-1] == places * layer.patch * 6 and folded.shape[1] == layer.groups
        assert torch.equal(layer.unfold(folded, BATCH), h_RBDC)


@pytest.mark.parametrize("bottleneck", [None, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_split_gives_the_states_of_the_parts(variant, bottleneck):
    network, (x_RBD, _) = build(variant, bottleneck=bottleneck), tokens()
    for layer, whole, first, rest in zip(
        network.layers, network(x_RBD), network(x_RBD[:, :2]), network(x_RBD[:, 2:]), strict=True
    ):
        for part, expected in zip(layer.split(whole, 2), (first, rest), strict=True):
            for ours, theirs in zip(part, expected, strict=True):
                assert (ours is None) == (theirs is None)
                if ours is not None:
                    close(ours, theirs, 1e-12)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_stack_can_be_entered_at_any_layer(first):
    network, (x_RBD, _) = build("hierarchical"), tokens()
    states = network(x_RBD)
    entered = network.forward_from(first, network.encode(x_RBD) if first == 0 else states[first - 1].out_RBDC)
    assert len(entered) == 3 - first
    for ours, theirs in zip(entered, states[first:], strict=True):
        assert torch.equal(ours.out_RBDC, theirs.out_RBDC)


# ---------------------------------------------------------------- replicas


@pytest.mark.parametrize("bottleneck", [None, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_replica_is_the_network_of_its_seed_alone(variant, bottleneck):
    seeds = [4, 9, 2**62]
    x_RBD, y_RB = tokens()
    together, top = build(variant, seeds=[4, 9, 7], bottleneck=bottleneck), Readout(torch.tensor([4, 9, 7]), 7, 3).double()
    states = together(x_RBD)
    logits = top(states[-1].out_RBDC, y_RB).logits_RBN
    for r, seed in enumerate([4, 9, 7]):
        alone, alone_top = build(variant, seeds=[seed], bottleneck=bottleneck), Readout(torch.tensor([seed]), 7, 3).double()
        for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
            assert torch.equal(ours[r], theirs[0])
        alone_states = alone(x_RBD[r : r + 1])
        for ours, theirs in zip(states, alone_states, strict=True):
            close(ours.out_RBDC[r], theirs.out_RBDC[0], 1e-12)
        close(logits[r], alone_top(alone_states[-1].out_RBDC, y_RB[r : r + 1]).logits_RBN[0], 1e-12)
    weights = [VARIANTS[variant]().build(TASK, torch.tensor([seed])).layers[0].weight_RGFE for seed in seeds]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2.0), ("tanh", 1.0), ("linear", 1.0)])
def test_initial_weights_have_the_stated_variance(activation, gain):
    network = LocallyConnectedNetwork(width=128, bottleneck=64, activation=activation).build(
        Task(8, 4, 2, 2, 3), torch.arange(4)
    )
    for layer in network.layers:
        weight = layer.weight_RGFE.double()
        count = weight.numel()
        assert abs(weight.mean()) < 6 * (gain / weight.shape[2] / count) ** 0.5
        assert abs(weight.square().mean() * weight.shape[2] / gain - 1) < 6 * (2 / count) ** 0.5
        assert torch.equal(layer.bias_RG1E, torch.zeros_like(layer.bias_RG1E))
        if layer.projection_RGEC is not None:
            projection = layer.projection_RGEC.double()
            assert abs(projection.square().mean() * 128 - 1) < 6 * (2 / projection.numel()) ** 0.5


def test_all_initial_weights_are_drawn_apart():
    network = LocallyConnectedNetwork(width=16, bottleneck=16).build(Task(8, 4, 2, 2, 3), torch.arange(3))
    numbers = torch.cat([p.flatten() for name, p in network.named_parameters() if "bias" not in name]).double()
    # a single stream used twice would make pairs of columns equal up to a scale
    flat = [p.flatten(2).flatten(0, 1) for name, p in network.named_parameters() if "bias" not in name]
    rows = torch.cat([F.normalize(p[:, :256].double(), dim=1) for p in flat])
    cosine = rows @ rows.T - torch.eye(len(rows), dtype=torch.float64)
    assert cosine.abs().max() < 0.5  # 1/16 is the standard deviation
    assert len(numbers.unique()) > 0.99 * len(numbers)


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("task", "sizes", "positions"),
    [
        (Task(4, 3, 2, 2, 3), {}, [4, 2, 1]),
        (Task(4, 3, 2, 4, 2), {"patch": 2, "depth": 4}, [8, 4, 2, 1]),
        (Task(4, 3, 2, 4, 2), {"patch": 2, "depth": 2}, [8, 4]),
        (Task(4, 3, 2, 2, 4), {"patch": 4, "depth": 2}, [4, 1]),
        (Task(4, 3, 2, 2, 3), {"depth": 2}, [4, 2]),
        (Task(4, 3, 2, 2, 3), {"patch": 1, "depth": 2}, [8, 8]),
    ],
)
@pytest.mark.parametrize("variant", ["hierarchical", "locally connected"])
def test_patches_of_another_size_than_the_tuples(variant, task, sizes, positions):
    network = build(variant, task, **sizes)
    assert network.positions == positions
    x_RBD, _ = tokens(task)
    h = whitened(x_RBD, task.v)
    for layer, state in zip(network.layers, network(x_RBD), strict=True):
        h = reference(variant, layer, torch.relu, h, sizes.get("patch", task.s))
        close(state.out_RBDC, h)
        assert layer.groups == (1 if variant == "hierarchical" else h.shape[2])


@pytest.mark.parametrize("depth", [None, 1, 5])
def test_dense_networks_take_any_depth(depth):
    network = build("dense", depth=depth)
    assert len(network) == (depth or TASK.L) and network.positions == [1] * len(network)
    assert network(tokens()[0])[-1].out_RBDC.shape == (REPLICAS, BATCH, 1, 7)


@pytest.mark.parametrize("variant", ["hierarchical", "locally connected"])
@pytest.mark.parametrize(
    ("task", "sizes", "key"),
    [
        (Task(4, 3, 2, 2, 3), {"depth": 4}, "model.network.depth"),
        (Task(4, 3, 2, 2, 3), {"patch": 3}, "model.network.patch"),
        (Task(4, 3, 2, 2, 3), {"patch": 4}, "model.network.patch"),
        (Task(4, 3, 2, 4, 2), {"patch": 2, "depth": 5}, "model.network.depth"),
        (Task(4, 3, 2, 3, 2), {"patch": 2, "depth": 1}, "model.network.depth"),
    ],
)
def test_networks_that_do_not_fit_the_string_are_refused(variant, task, sizes, key):
    with pytest.raises(InvalidInput) as caught:
        VARIANTS[variant](**sizes).build(task, torch.tensor([0]))
    assert caught.value.key == key
    assert str(task.length) in str(caught.value)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("key", "value"), [("width", 0), ("depth", 0), ("bottleneck", -1), ("activation", "sigmoid")])
def test_bad_sizes_are_refused_by_name(variant, key, value):
    with pytest.raises(InvalidInput) as caught:
        VARIANTS[variant](**{key: value})
    assert caught.value.key == f"model.network.{key}"


def test_a_patch_under_one_is_refused():
    with pytest.raises(InvalidInput) as caught:
        HierarchicalNetwork(patch=0)
    assert caught.value.key == "model.network.patch"


# ---------------------------------------------------------------- readout


def test_readout_is_a_softmax_classifier():
    generator = torch.Generator().manual_seed(0)
    readout = Readout(torch.arange(REPLICAS), 2 * 7, 3).double()
    with torch.no_grad():
        readout.bias_R1N.copy_(torch.randn(REPLICAS, 1, 3, generator=generator))
    out_RBDC = torch.randn(REPLICAS, BATCH, 2, 7, generator=generator, dtype=torch.float64).requires_grad_()
    y_RB = torch.randint(0, 3, (REPLICAS, BATCH), generator=generator)
    logits = [out_RBDC[r].flatten(1) @ readout.weight_RFN[r] + readout.bias_R1N[r] for r in range(REPLICAS)]
    losses = [F.cross_entropy(logits[r], y_RB[r]) for r in range(REPLICAS)]
    weight, bias, down = torch.autograd.grad(sum(losses), [readout.weight_RFN, readout.bias_R1N, out_RBDC])
    with torch.no_grad():
        state = readout(out_RBDC, y_RB.to(torch.uint8))
        update = readout.backward(state)
        close(state.logits_RBN, torch.stack(logits))
        close(state.loss_R, torch.stack(losses))
        close(state.error_RBN, torch.stack(logits).softmax(-1) - F.one_hot(y_RB, 3))
        assert set(update) == {"weight_RFN", "bias_R1N"}
        close(update["weight_RFN"], weight)
        close(update["bias_R1N"], bias)
        close(readout.hand_down(state, out_RBDC.shape), down)


def test_readout_stays_finite_for_extreme_logits():
    readout = Readout(torch.arange(1), 1, 2)
    with torch.no_grad():
        readout.weight_RFN.copy_(torch.tensor([[[1.0, -1.0]]]))
        state = readout(torch.tensor([1e4, -1e4]).view(1, 2, 1, 1), torch.tensor([[0, 0]]))
    assert state.loss_R.tolist() == [1e4]
    assert state.error_RBN.tolist() == [[[0.0, 0.0], [-1.0, 1.0]]]


@pytest.mark.parametrize(
    ("bottleneck", "widths"), [("v", [6, 12]), ("2v", [12, 12]), ("10v", [60, 12]), ("5", [5, 12]), (None, [12, 12])]
)
def test_a_bottleneck_follows_the_vocabulary(bottleneck, widths):
    task = Task(6, 6, 3, 2, 2)
    for kind in (HierarchicalNetwork, LocallyConnectedNetwork, DenseNetwork):
        network = kind(width=12, bottleneck=bottleneck).build(task, torch.tensor([0]))
        assert [layer.out_channels for layer in network.layers] == widths


@pytest.mark.parametrize("bad", ["w", "0v", "v2", "-1", "1.5v", "", "2 v", 0])
def test_a_bottleneck_that_is_neither_a_number_nor_a_multiple_of_the_vocabulary_is_refused(bad):
    with pytest.raises(InvalidInput, match=r"model\.network\.bottleneck"):
        HierarchicalNetwork(bottleneck=bad)
