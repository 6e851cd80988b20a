"""What hooks record of a pass against plain autograd, and the fallback against one Jacobian an example."""

import pytest
import torch
from torch import nn

from explainlib.layerwise.recording import (
    EMBEDDING,
    OUTER_PRODUCT,
    flat_slices,
    forward_pass,
    initial_plan,
    layer_calls,
    per_example_gradients,
)
from explainlib.params import Parameters
from tests.layerwise.nets import FALLBACK, Attends, Text, jacobian, seeded, tokens
from tests.problems import normal


def test_inputs_and_output_gradients_of_each_call():
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    net = nn.Sequential(first, nn.Tanh(), second).double()
    parameters, x, c = Parameters(net), normal(5, 3), normal(5, 2, 2, seed=1)
    layers = [parameters.module[0], parameters.module[2]]
    one, two = layer_calls(parameters, parameters.theta, x, c, layers)
    assert one.layer is layers[0] and two.layer is layers[1]
    h = net[1](net[0](x)).detach()
    torch.testing.assert_close(one.input, x)
    torch.testing.assert_close(two.input, h)
    torch.testing.assert_close(two.gradient, c)
    torch.testing.assert_close(one.gradient, (c @ net[2].weight.detach()) * (1 - h.square())[:, None])


def test_a_pass_counts_its_bytes_and_leaves_no_hook():
    parameters, x = Parameters(nn.Linear(3, 4).double()), normal(5, 3)
    forward = forward_pass(parameters, parameters.theta, x, [parameters.module])
    assert forward.nbytes == 8 * 5 * (3 + 4)
    assert not parameters.module._forward_hooks
    assert forward_pass(parameters, parameters.theta, x, []).backward(normal(5, 1, 4)) == []


def test_an_input_overwritten_later_is_recorded_as_it_was():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)).double()
    parameters, x = Parameters(net), normal(5, 3)
    (call,) = layer_calls(parameters, parameters.theta, x, normal(5, 1, 3), [parameters.module[0]])
    torch.testing.assert_close(call.input, x)


def test_the_plan_of_a_text_net():
    parameters = Parameters(seeded(Text))
    plan = initial_plan(parameters)
    kinds = {parameter.name: parameter.kind for parameter in plan.recorded}
    assert kinds["embedding.weight"] == EMBEDDING and kinds["read.weight"] == OUTER_PRODUCT
    assert plan.fallback == () and set(kinds) == set(parameters.names)
    spans = flat_slices(parameters)
    assert all(parameter.span == spans[parameter.name] for parameter in plan.recorded)
    stops = [span.stop for span in spans.values()]
    assert [span.start for span in spans.values()] == [0, *stops[:-1]] and stops[-1] == parameters.theta.numel()
    less = plan.without({"read.weight", "no such name"})
    assert less.fallback == ("read.weight",) and len(less.recorded) == len(plan.recorded) - 1


def test_attention_is_three_projections_and_the_layer_that_it_holds():
    net = seeded(lambda: Attends(batch_first=True))
    parameters = Parameters(net, ["attention.in_proj_weight", "attention.in_proj_bias", "attention.out_proj.weight"])
    plan = initial_plan(parameters)
    spans = [
        (parameter.name.rpartition("_")[2], parameter.span.start, parameter.span.stop) for parameter in plan.recorded
    ]
    assert spans[:3] == [("weight", 16 * k, 16 * k + 16) for k in range(3)]
    assert spans[3:6] == [("bias", 48 + 4 * k, 52 + 4 * k) for k in range(3)] and plan.recorded[6].span == slice(60, 76)
    assert len(plan.layers) == 4, "weight and bias of a projection are of one layer"
    attention = parameters.module.attention
    calls = layer_calls(parameters, parameters.theta, tokens(), normal(7, 1, 3), plan.layers)
    assert [call.gradient.shape for call in calls] == [(7, 1, 5, 4)] * 4
    assert "forward" not in vars(attention) and not attention.out_proj._forward_hooks
    plain = parameters.outputs(parameters.theta, tokens())
    torch.testing.assert_close(forward_pass(parameters, parameters.theta, tokens(), plan.layers).outputs, plain)
    attention.forward = lambda *inputs, **options: (inputs[2], None)  # a user's own
    assert initial_plan(parameters).fallback == ("attention.in_proj_weight", "attention.in_proj_bias")


@pytest.mark.parametrize("layer", [lambda: nn.Embedding(7, 3, scale_grad_by_freq=True), lambda: nn.PReLU(3)])
def test_special_layers_are_not_recorded(layer):
    parameters = Parameters(nn.Sequential(nn.Linear(3, 3), layer()).double())
    assert initial_plan(parameters).fallback == ("1.weight",)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("name", ["sequence first", "hidden use"])
def test_the_fallback(name, batched):
    make, x, names = FALLBACK[name]
    parameters = Parameters(seeded(make))
    C = parameters.outputs(parameters.theta, x[:1]).shape[1]
    c = normal(len(x), 2, C, seed=3)
    got = per_example_gradients(parameters, parameters.theta, x, c, names, batched=batched)
    J = torch.stack([jacobian(parameters, x, c[:, k]) for k in range(2)], dim=1).flatten(0, 1)
    spans = flat_slices(parameters)
    torch.testing.assert_close(got, torch.cat([J[:, spans[name]] for name in names], dim=1))


def test_tokens_as_input():
    parameters = Parameters(seeded(Text))
    (call,) = layer_calls(
        parameters, parameters.theta, tokens(), normal(7, 1, 3), [parameters.module.get_submodule("embedding")]
    )
    assert torch.equal(call.input, tokens()) and call.gradient.shape == (7, 1, 5, 4)
