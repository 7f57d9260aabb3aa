"""The trainer: it learns, repeats itself, resumes bit for bit, and says what went wrong."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from adsq import files
from adsq.augmentation import Augmentation
from adsq.checkpoint import load_model, load_trainer, save_checkpoint, save_model
from adsq.data import ImageDataset, TensorImageDataset
from adsq.kernels import unpack_codes
from adsq.monitoring import NonFiniteLossError, collapse_warning
from adsq.networks import ADSQ, ModelConfig
from adsq.objective import WITHOUT_LABEL_NET, ObjectiveConfig
from adsq.posterior import PosteriorConfig
from adsq.training import Objective, Trainer, TrainingConfig

BITS = 16


def stripes(count: int = 90, multi_label: bool = False) -> ImageDataset:
    """Three easy classes: bright rows at three heights, with noise."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 60, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    rows = nn.functional.one_hot(labels, 3).to(torch.uint8)
    if multi_label:
        rows |= torch.roll(rows, 1, dims=1) * (torch.arange(count) % 2).to(torch.uint8).unsqueeze(1)
    for label, first in enumerate((0, 3, 6)):
        images[:, 0, first : first + 2] += 150 * rows[:, label].view(-1, 1, 1)
    return TensorImageDataset(images, rows if multi_label else labels, ["top", "middle", "bottom"], name="stripes")


def make_trainer(
    dataset: ImageDataset | None = None,
    objective: Objective | str | None = None,
    backbone: type[nn.Module] | None = None,
    **schedule: object,
) -> Trainer:
    dataset = dataset or stripes()
    torch.manual_seed(0)
    model = ADSQ(ModelConfig(BITS, 3, dataset.image_shape, semantic_dim=16), backbone)
    config = TrainingConfig(**{"epochs": 3, "batch_size": 16, "label_pretraining": 60, "bank_columns": 32} | schedule)
    return Trainer(model, dataset, torch.arange(60), objective, config, Augmentation(shift=1))


def states_equal(a: Trainer, b: Trainer) -> bool:
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    banks = zip([a.codes, *a.banks], [b.codes, *b.banks], strict=True)
    learned = zip(a.steps.parameters.values(), b.steps.parameters.values(), strict=True)
    return all(torch.equal(x, y) for x, y in [*pairs, *banks, *learned])


TERMS = {
    "adsq-likelihood": {"f_asymmetric", "g_hamming_guidance", "label_codes"},
    "adsq": {"f_semantic", "g_semantic", "asymmetric", "f_symmetric"},
}


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("objective", ["adsq", "adsq-likelihood"])
def test_codes_of_unseen_images_separate_the_classes(objective, multi_label):
    dataset = stripes(multi_label=multi_label)
    trainer = make_trainer(dataset, objective, epochs={"adsq": 40, "adsq-likelihood": 12}[objective])
    trainer.fit()
    unseen = torch.arange(60, 90)
    for kind in ("f", "g", "average"):
        codes = unpack_codes(trainer.model.encode(dataset, unseen, kind=kind), BITS)
        products = codes @ codes.T
        labels = dataset.labels[unseen]
        rows = labels.float() if multi_label else nn.functional.one_hot(labels, 3).float()
        similar = rows @ rows.T > 0
        assert products[similar].mean() > products[~similar].mean() + BITS / 2
    assert trainer.collapse_warning() is None
    first, last = trainer.history[0], trainer.history[-1]
    assert last["loss"] < first["loss"] and last["distinct_codes"] >= 3
    assert TERMS[objective] | {"images_per_second", "saturation"} <= last.keys()


def test_same_seed_same_model_and_another_seed_another():
    first, second, other = make_trainer(), make_trainer(), make_trainer(seed=1)
    for trainer in (first, second, other):
        trainer.fit()
    assert states_equal(first, second)
    assert not states_equal(first, other)


class Dropping(nn.Module):
    """A backbone that draws from the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 20), nn.ReLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


@pytest.mark.parametrize("backbone", [Dropping, None], ids=["dropout", "small-cnn"])
@pytest.mark.parametrize("objective", ["adsq", "adsq-likelihood"])
def test_resume_continues_bit_for_bit(objective, backbone, tmp_path):
    whole = make_trainer(objective=objective, backbone=backbone)
    whole.fit()
    stopped = make_trainer(objective=objective, backbone=backbone)

    def stop(trainer: Trainer) -> None:
        save_checkpoint(tmp_path / "checkpoint.safetensors", trainer, {"note": [1, "two"]})
        torch.rand(17)  # the caller's random numbers are none of the trainer's business
        if trainer.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.fit(after_epoch=stop)
    resumed, about = load_trainer(tmp_path, stripes(), backbone=backbone and backbone())
    assert (resumed.epoch, about) == (2, {"note": [1, "two"]})
    resumed.fit()
    assert states_equal(whole, resumed)
    volatile = {"seconds", "images_per_second"}
    strip = [[{k: v for k, v in r.items() if k not in volatile} for r in t.history] for t in (whole, resumed)]
    assert strip[0] == strip[1]
    json.dumps(resumed.history)


def test_a_checkpoint_of_before_there_were_two_objectives_is_read(tmp_path):
    trainer = make_trainer(objective=ObjectiveConfig(quantization=0.2), epochs=1)
    trainer.fit()
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, trainer)
    tensors, meta = files.read_tensors(path, kind="adsq-model", version=1)
    del meta["trainer"]["objective"]["name"]
    files.write_tensors(path, tensors, kind="adsq-model", version=1, meta=meta)
    resumed, _ = load_trainer(path, stripes())
    assert resumed.objective == trainer.objective and states_equal(trainer, resumed)


@pytest.mark.parametrize("nets", [1, 2])
def test_the_posterior_objective_moves_all_it_should(nets):
    trainer = make_trainer(objective=PosteriorConfig(image_nets=nets, hamming_guidance=0.5), epochs=2)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    slopes = [trainer.steps.slope()]
    trainer.fit(after_step=lambda step, terms: slopes.append(trainer.steps.slope()))
    assert slopes[0] == 1 and slopes[-1] == 10 and len(slopes) == 9
    assert slopes == sorted(slopes)
    learned = [parameter.item() for parameter in trainer.steps.parameters.values()]
    assert learned != [8, 0] and len(learned) == 2
    after = trainer.model.state_dict()
    assert not torch.equal(after["label_net.hashing.weight"], before["label_net.hashing.weight"])
    assert not torch.equal(after["img_net_g.hashing.weight"], before["img_net_g.hashing.weight"])
    same = torch.equal(after["img_net_g.hashing.weight"], after["img_net_f.hashing.weight"])
    assert same == (nets == 1), "a second ImgNet that is not trained is a copy of the first"


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_label_that_no_training_image_has(multi_label):
    whole = stripes(multi_label=multi_label)
    labels = nn.functional.pad(whole.labels, (0, 1)) if multi_label else whole.labels
    dataset = TensorImageDataset(whole.__getitems__(range(90)), labels, [*whole.class_names, "none"], name="stripes")
    model = ADSQ(ModelConfig(BITS, 4, dataset.image_shape))
    trainer = Trainer(model, dataset, torch.arange(60), "adsq", TrainingConfig(epochs=1, batch_size=16))
    trainer.fit()
    assert trainer.history[-1]["loss"] < 10


def test_class_ids_and_rows_of_one_label_are_the_same():
    ids = stripes()
    rows = TensorImageDataset(
        ids.__getitems__(range(len(ids))),
        nn.functional.one_hot(ids.labels, 3).to(torch.uint8),
        ids.class_names,
        name="",
    )
    first, second = (make_trainer(dataset, "adsq", epochs=1) for dataset in (ids, rows))
    for trainer in (first, second):
        trainer.fit()
    assert states_equal(first, second)


def test_training_leaves_the_global_generator_alone():
    trainer = make_trainer(epochs=1)
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    trainer.fit()
    assert torch.equal(torch.rand(3), want)


def test_model_file_round_trip(tmp_path):
    trainer = make_trainer(epochs=1)
    trainer.fit()
    save_model(tmp_path / "model.safetensors", trainer.model, {"x": 1})
    save_checkpoint(tmp_path / "checkpoint.safetensors", trainer)
    codes = trainer.model.encode(stripes())
    for path in (tmp_path, tmp_path / "model.safetensors", tmp_path / "checkpoint.safetensors"):
        model, _ = load_model(path)
        assert not model.training and torch.equal(model.encode(stripes()), codes)
    assert load_model(tmp_path)[1] == {"x": 1}
    with pytest.raises(ValueError, match="holds a trained model, but no training state"):
        load_trainer(tmp_path / "model.safetensors", stripes())


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(FileNotFoundError, match=r"holds no model.safetensors or checkpoint.safetensors"):
        load_model(tmp_path)
    trainer = make_trainer(epochs=1)
    trainer.fit()
    save_checkpoint(path, trainer)
    whole = path.read_bytes()
    for size in (0, 7, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="checkpoint"):
            load_trainer(path, stripes())
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(ValueError, match="checkpoint"):
        load_model(path)
    files.write_tensors(path, {}, kind="something", version=1, meta={})
    with pytest.raises(ValueError, match="something"):
        load_model(path)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"dataset: expected .*got 30 images"):
        load_trainer(path, stripes(30))


@pytest.mark.parametrize("where", ["weight", "label"])
def test_non_finite_loss_names_step_and_term(where):
    trainer = make_trainer(objective="adsq-likelihood", epochs=2, label_pretraining=5)

    def poison(step: int, terms: dict[str, float]) -> None:
        if step == 6:  # the second step of the second epoch
            net = trainer.model.img_net_g.hashing if where == "weight" else trainer.model.label_net.hashing
            with torch.no_grad():
                net.weight.fill_(float("nan"))

    term = "step 7: g_asymmetric is nan" if where == "weight" else "step 8: label_hamming is nan"
    with pytest.raises(NonFiniteLossError, match=term):
        trainer.fit(after_step=poison)


def test_collapse_is_noticed():
    healthy = {"distinct_codes": 3, "constant_bits": 0}
    assert collapse_warning(healthy, 3, BITS) is None
    assert "2 distinct codes for 3" in collapse_warning(healthy | {"distinct_codes": 2}, 3, BITS)
    assert "9 of 16 bits are constant" in collapse_warning(healthy | {"constant_bits": 9}, 3, BITS)
    assert collapse_warning({"distinct_codes": 2, "constant_bits": 0}, 10, 1) is None, "one bit has two codes at most"
    trainer = make_trainer()
    trainer.codes.fill_(1)
    assert "1 distinct codes for 3 distinct sets of labels" in trainer.collapse_warning()


@pytest.mark.parametrize(
    "objective",
    [
        ObjectiveConfig(image_nets=1),
        ObjectiveConfig(**WITHOUT_LABEL_NET),
        ObjectiveConfig(form="squared", similarity="cosine"),
        ObjectiveConfig(asymmetric=0.0, quantization=0.0, balanced=False),
        PosteriorConfig(image_nets=1, quantization=0.1, mixing=False),
        PosteriorConfig(soft_targets=False, balanced=False, similarity="cosine", hamming_guidance=1.0),
    ],
    ids=["one net", "no LabelNet", "squared cosine", "guidance alone", "adsq, one net", "adsq, hard targets"],
)
def test_ablations_run(objective, tmp_path):
    trainer = make_trainer(objective=objective, epochs=2)
    trainer.fit()
    save_checkpoint(tmp_path / "c.safetensors", trainer)
    resumed, _ = load_trainer(tmp_path / "c.safetensors", stripes())
    assert resumed.objective == objective and states_equal(trainer, resumed)
    terms = set(trainer.history[-1])
    if isinstance(objective, PosteriorConfig):
        assert {"f_semantic", "asymmetric"} <= terms
        assert ("g_hamming_guidance" in terms) == (objective.hamming_guidance > 0)
        return
    assert ("g_quantization" in terms) == (objective.image_nets == 2 and objective.quantization > 0)
    assert ("label_semantic" in terms) == objective.uses_label_net


def test_a_last_batch_of_one_image_is_left_out():
    trainer = make_trainer(batch_size=59, epochs=1)
    assert trainer.steps_per_epoch == 1
    trainer.fit()


def test_pixel_statistics_are_measured():
    dataset = stripes()
    trainer = make_trainer(dataset, epochs=1)
    trainer.fit()
    pixels = dataset.__getitems__(range(60)).float() / 255
    assert float(trainer.model.pixel_mean) == pytest.approx(float(pixels.mean()), abs=1e-5)
    assert float(trainer.model.pixel_std) == pytest.approx(float(pixels.std(unbiased=False)), abs=1e-5)


def test_augmentation():
    images = torch.arange(2 * 1 * 4 * 4, dtype=torch.uint8).view(2, 1, 4, 4)
    assert Augmentation()(images, torch.Generator()) is images
    flips = {
        tuple(Augmentation(flip=True)(images, torch.Generator().manual_seed(s))[0, 0, 0].tolist()) for s in range(20)
    }
    assert flips == {(0, 1, 2, 3), (3, 2, 1, 0)}
    rows = {
        tuple(Augmentation(shift=1)(images, torch.Generator().manual_seed(s))[0, 0, :, 1].tolist()) for s in range(60)
    }
    columns = [[r * 4 + c for r in rows_] for c in (0, 1, 2) for rows_ in ((0, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 3))]
    assert rows == {tuple(column) for column in columns}
    default = Augmentation.default("digits", (1, 8, 8)), Augmentation.default("fashion-mnist", (1, 28, 28))
    assert default == (Augmentation(1, False), Augmentation(2, True))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TrainingConfig(epochs=0), "epochs: expected at least 1, got 0"),
        (lambda: TrainingConfig(batch_size=1), "batch_size: expected at least 2, got 1"),
        (lambda: TrainingConfig(peak_lr=float("nan")), "peak_lr: expected a finite number"),
        (lambda: TrainingConfig(precision="int8"), "precision: expected one of auto"),
        (
            lambda: Trainer(ADSQ(ModelConfig(8, 4, (1, 8, 8))), stripes(), torch.arange(9)),
            "dataset: .*4 classes.*got .*3",
        ),
        (lambda: Trainer(ADSQ(ModelConfig(8, 3, (1, 8, 8))), stripes(), torch.arange(1)), "at least 2 training images"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_on_a_gpu(precision):
    trainer = make_trainer(epochs=2, precision=precision)
    gpu = Trainer(trainer.model, stripes(), torch.arange(60), config=trainer.config, device="cuda")
    gpu.fit()
    assert gpu.history[-1]["loss"] < gpu.history[0]["loss"]
