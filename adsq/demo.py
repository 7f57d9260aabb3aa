"""The demo: the whole way from images to a report, on handwritten digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torchvision.transforms.v2.functional import to_pil_image

from adsq import data, run_report, workflow
from adsq.index import HammingIndex
from adsq.networks import ModelConfig
from adsq.posterior import PosteriorConfig
from adsq.training import TrainingConfig

BITS = 32


def run(folder: Path, seed: int, say: Callable[[str], None]) -> None:
    """Train, encode, index, search by picture, evaluate and report, with everything written to `folder`."""
    dataset = data.load("digits")
    split = data.make_split(dataset, data.default_protocol(dataset), seed)
    say(
        f"1. Training {BITS}-bit ADSQ on {len(split.training):,} of scikit-learn's {len(dataset):,} digits, "
        f"{len(split.query):,} others are queries"
    )
    model = ModelConfig(BITS, dataset.num_classes, dataset.image_shape)
    schedule = TrainingConfig(epochs=workflow.default_epochs(dataset), seed=seed)
    workflow.train(folder, dataset, split, model, PosteriorConfig(), schedule, overwrite=True)

    loaded = workflow.open_run(folder)
    scored = workflow.score(loaded, "average")
    index = workflow.build_index(scored.database)
    index.meta = index.meta | {"model": str(folder.resolve())}
    index.save(folder / workflow.INDEX_FILE)
    say(f"2. Indexed {len(index):,} codes of {BITS // 8} bytes in {folder / workflow.INDEX_FILE}")

    picture = folder / "picture.png"
    to_pil_image(dataset[int(split.query[0])]).save(picture)
    index = HammingIndex.load(folder / workflow.INDEX_FILE)
    _, codes = workflow.encode_pictures(index, [picture], None)
    distances, items = index.search(codes, 5)
    known = workflow.describe(dataset, int(split.query[0]))[0]
    found = ", ".join(workflow.describe(dataset, item)[0] for item in items[0].tolist())
    say(f"3. Searched for {picture}, a {known}: found {found} at distances {distances[0].tolist()}")

    workflow.write_evaluation(folder / workflow.EVALUATION_FILE, scored, loaded)
    say("4. Evaluated " + ", ".join(f"{name} {value}" for name, value in run_report.headline(scored.result)[:2]))
    page = run_report.write(folder / "report", folder, loaded, scored)
    say(f"5. Wrote {page}: open it in a browser")
    say(f"Try: adsq search {folder / workflow.INDEX_FILE} --image {picture}")
