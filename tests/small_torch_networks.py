"""A small network of many operators, pictures for it, and what its quantized graph holds."""

import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn import functional

QUANTIZE = "quantize_per_tensor.default"
DEQUANTIZE = "dequantize_per_tensor.default"


class Block(nn.Module):
    """Inverted residual with one-sided padding in front of its strided form."""

    def __init__(self, channels, out, stride):
        super().__init__()
        self.residual = stride == 1 and channels == out
        self.expand = nn.Sequential(nn.Conv2d(channels, 4 * channels, 1, bias=False), nn.BatchNorm2d(4 * channels), nn.ReLU6(inplace=True))
        self.pad = nn.ConstantPad2d((0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1), 0.0)
        self.depthwise = nn.Sequential(
            nn.Conv2d(4 * channels, 4 * channels, 3, stride, groups=4 * channels, bias=False), nn.BatchNorm2d(4 * channels), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(4 * channels, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.project(self.depthwise(self.pad(self.expand(x))))
        return x + y if self.residual else y


class Network(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2), Block(16, 16, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(16, classes))

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


def uneven(model, *, seed=0):
    """Running statistics and scales as training leaves them, with channels orders of magnitude apart."""
    generator, biases = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.copy_(10.0 ** (4 * torch.rand(module.num_features, generator=generator) - 3))
            module.bias.data.normal_(0, 0.3, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, fan_in**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=biases)
    return model.eval()


def pictures(count=8, size=16, seed=1):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def calls(program, name):
    return [node for node in program.graph.nodes if node.op == "call_function" and str(node.target).endswith(name)]


def constants(program, node):
    """Codes, scales, grid of a weight's or bias' dequantize node."""
    values = {**program.state_dict, **program.constants}
    signature = {**program.graph_signature.inputs_to_buffers, **program.graph_signature.inputs_to_parameters}
    return values[signature[node.args[0].name]], values[signature[node.args[1].name]], node.args[4:6]


def outputs(program, images):
    module = program.module()
    return torch.cat([module(image[None]) for image in images]).detach()
