"""The networks, the backbones, and encoding in the order asked for."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from adsq.backbones import SmallCNN, backbone_names, build_backbone, feature_size
from adsq.data import TensorImageDataset
from adsq.kernels import pack_codes, unpack_codes
from adsq.networks import ADSQ, LabelNet, ModelConfig


def tiny_config(**changes: object) -> ModelConfig:
    return ModelConfig(**{"num_bits": 12, "num_classes": 3, "image_shape": (1, 8, 8), "semantic_dim": 16} | changes)


def some_images(count: int = 37, shape: tuple[int, int, int] = (1, 8, 8)) -> TensorImageDataset:
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8)
    return TensorImageDataset(images, torch.arange(count) % 3, ["a", "b", "c"], name="random")


def test_label_net_has_three_fully_connected_layers():
    net = LabelNet(5, 16, 12)
    assert [type(m) for m in net.children()] == [nn.Linear] * 3
    semantic, hashing = net(torch.eye(5))
    assert semantic.shape == (5, 16) and hashing.shape == (5, 12)
    assert semantic.abs().max() < 1 and hashing.abs().max() < 1


def test_img_nets_share_their_architecture_and_no_weight():
    model = ADSQ(tiny_config())
    f, g = (dict(net.named_parameters()) for net in (model.img_net_f, model.img_net_g))
    assert {n: p.shape for n, p in f.items()} == {n: p.shape for n, p in g.items()}
    assert not {p.data_ptr() for p in f.values()} & {p.data_ptr() for p in g.values()}
    assert not torch.equal(f["hashing.weight"], g["hashing.weight"])


def test_small_cnn_has_the_size_the_method_names():
    model = ADSQ(ModelConfig(32, 10, (1, 28, 28)))
    assert sum(p.numel() for p in model.img_net_f.parameters()) == 208_256


@pytest.mark.parametrize("kind", ["f", "g", "average"])
def test_encode_keeps_the_order_of_the_indices(kind):
    model, dataset = ADSQ(tiny_config()), some_images()
    one_by_one = torch.cat([model.encode(dataset, torch.tensor([i]), kind=kind) for i in range(len(dataset))])
    everything = model.encode(dataset, kind=kind, batch_size=8)
    assert torch.equal(everything, one_by_one)
    shuffled = torch.randperm(len(dataset))
    for workers in (0, 2):
        packed = model.encode(dataset, shuffled, kind=kind, batch_size=5, num_workers=workers)
        assert torch.equal(packed, everything[shuffled])
    assert model.training, "encoding must give the model back as it was"


def test_average_is_the_sign_of_the_sum():
    model, dataset = ADSQ(tiny_config()).eval(), some_images(5)
    images = dataset.__getitems__(range(5))
    with torch.no_grad():
        u, v, both = (model.relaxed_codes(images, kind) for kind in ("f", "g", "average"))
    assert torch.equal(both, u + v)
    assert torch.equal(model.encode(dataset), pack_codes(u + v))
    assert unpack_codes(model.encode(dataset), 12).shape == (5, 12)


def test_encode_nothing():
    assert ADSQ(tiny_config()).encode(some_images(), torch.empty(0, dtype=torch.int64)).shape == (0, 2)


def test_torchvision_backbones_lose_their_last_layer():
    for name, size in (("resnet18", 512), ("alexnet", 4096), ("mobilenet_v3_small", 1024)):
        for channels in (1, 3):
            assert feature_size(build_backbone(name, (channels, 64, 64)), (channels, 64, 64)) == size
    assert "vit_b_16" in backbone_names()


def test_weights_from_a_file(tmp_path):
    reference = models.resnet18(weights=None)
    for path, save in ((tmp_path / "w.safetensors", save_file), (tmp_path / "w.pth", torch.save)):
        save(reference.state_dict(), path)
        backbone = build_backbone("resnet18", (3, 32, 32), str(path))
        assert torch.equal(backbone.conv1.weight, reference.conv1.weight)
    model = ADSQ(tiny_config(image_shape=(1, 32, 32), backbone="resnet18"), weights=str(tmp_path / "w.pth"))
    assert model.pixel_statistics_known and model.pixel_mean.tolist() == pytest.approx([0.485])


class Flat(nn.Module):
    """A user's backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 20)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


@pytest.mark.parametrize("backbone", [Flat(), Flat], ids=["module", "function"])
def test_a_module_of_the_users(backbone):
    model = ADSQ(tiny_config(), backbone)
    assert model.config.backbone == "custom"
    assert model.img_net_f.backbone.layer.weight.data_ptr() != model.img_net_g.backbone.layer.weight.data_ptr()
    assert model.encode(some_images(3)).shape == (3, 2)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tiny_config(num_bits=0), ValueError, "num_bits: expected an integer from 1 to 4096, got 0"),
        (lambda: tiny_config(num_bits=4097), ValueError, "num_bits: .*got 4097"),
        (lambda: tiny_config(num_classes=0), ValueError, "num_classes: expected an integer from 1, got 0"),
        (lambda: tiny_config(image_shape=(2, 8, 8)), ValueError, "image_shape"),
        (lambda: ADSQ(tiny_config(image_shape=(1, 7, 8))), ValueError, "at least 8 x 8 pixels, got 7 x 8"),
        (lambda: ADSQ(tiny_config(backbone="resnet")), ValueError, "backbone: expected small-cnn or .*got 'resnet'"),
        (lambda: ADSQ(tiny_config(backbone="squeezenet1_0")), ValueError, "squeezenet1_0 has no linear layer"),
        (lambda: ADSQ(tiny_config(backbone="alexnet")), ValueError, "backbone: does not take images of shape"),
        (
            lambda: ADSQ(tiny_config(), nn.Identity()),
            ValueError,
            r"one feature vector an image, \[n, D\], got \[1, 1, 8",
        ),
        (lambda: ADSQ(tiny_config(), weights="torchvision"), ValueError, "weights: small-cnn has none"),
        (lambda: build_backbone("resnet18", (3, 32, 32), "no.pth"), FileNotFoundError, "weights: no file no.pth"),
        (lambda: ADSQ(tiny_config()).relaxed_codes(torch.full((1, 1, 8, 8), float("nan"))), TypeError, "uint8"),
        (
            lambda: ADSQ(tiny_config()).relaxed_codes(torch.zeros(1, 1, 9, 8).byte()),
            ValueError,
            r"images: .*\[1, 1, 9, 8\]",
        ),
        (
            lambda: ADSQ(tiny_config()).encode(some_images(), kind="h"),
            ValueError,
            "kind: expected one of average, f, g",
        ),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_damaged_and_foreign_weights(tmp_path):
    for name, data in (("w.pth", b"hello"), ("w.safetensors", b"hello")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(OSError, match=rf"weights: .*{name} is not a state dict"):
            build_backbone("resnet18", (3, 32, 32), str(tmp_path / name))
    torch.save(SmallCNN(1, 8, 8).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"weights: .*other.pth does not fit resnet18"):
        build_backbone("resnet18", (3, 32, 32), str(tmp_path / "other.pth"))


def test_config_round_trip():
    config = tiny_config(backbone="resnet18")
    assert ModelConfig.from_dict(config.to_dict()) == config
