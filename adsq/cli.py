"""The command line: adsq train | encode | index | search | export | evaluate | info | demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from adsq._command import app, command, out

DATA_HELP = (
    "digits, fashion-mnist, cifar10, nuswide, imagenet100, list (train.txt, test.txt, database.txt), a folder of class "
    "folders, or a CSV file of path and labels."
)
Run = Annotated[Path, typer.Argument(help="Folder that adsq train wrote, or a model file.", show_default=False)]
Kind = Annotated[str, typer.Option(help="average (both ImgNets), or f or g (one of them).")]
Workers = Annotated[int, typer.Option(help="Processes that decode images.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


@command("adsq train --data fashion-mnist --root ~/fashion --bits 32 --out runs/fashion", together=True)
def train(
    data: Annotated[str, typer.Option(help=DATA_HELP)] = "digits",
    root: Annotated[Path | None, typer.Option(help="Folder of the files of a named data set.")] = None,
    download: Annotated[bool, typer.Option(help="Let torchvision fetch fashion-mnist or cifar10.")] = False,
    image_size: Annotated[int | None, typer.Option(help="Pixels a side; 64 where images may differ in size.")] = None,
    classes: Annotated[Path | None, typer.Option(help="imagenet100: file of wordnet ids, one a line.")] = None,
    lists: Annotated[Path | None, typer.Option(help="list: folder of the three lists, if not --root.")] = None,
    drop_missing: Annotated[bool, typer.Option(help="nuswide, list: leave out images not on disk.")] = False,
    protocol: Annotated[
        str | None, typer.Option(help="Name, or queries/training/database as 100/500/rest or given/100/rest.")
    ] = None,
    bits: Annotated[int, typer.Option(help="Code length, 1 to 4096.")] = 32,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder to write; runs/DATA-BITS.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    backbone: Annotated[
        str, typer.Option(help="small-cnn or a torchvision classifier such as resnet18.")
    ] = "small-cnn",
    weights: Annotated[str, typer.Option(help="none, torchvision, or the file of a state dict.")] = "none",
    objective: Annotated[str, typer.Option(help="adsq or adsq-likelihood, see docs/method.md.")] = "adsq",
    image_nets: Annotated[int, typer.Option(help="2, or 1 for ImgNet F alone.")] = 2,
    similarity: Annotated[str, typer.Option(help="shared or cosine.")] = "shared",
    form: Annotated[str | None, typer.Option(help="likelihood or squared, with adsq-likelihood.")] = None,
    epochs: Annotated[int | None, typer.Option(help="30 for digits, 20 else.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step; 64 with adsq-likelihood, 128 else.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; 2e-3 with adsq-likelihood, 3e-3 else.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split and of training.")] = 0,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16, on a GPU.")] = "auto",
    device: Device = "auto",
    workers: Workers = 0,
) -> None:
    """Train ADSQ on images."""
    from adsq import distributed, workflow
    from adsq.data import default_protocol, load, make_split
    from adsq.networks import ModelConfig
    from adsq.training import TrainingConfig, make_objective

    distributed.start()
    target = workflow.choose_device(device)
    if resume:
        if out_folder is None:
            raise ValueError("--resume: expected --out with the folder of the run to go on with")
        trainer = workflow.resume(out_folder, epochs=epochs, device=target)
        folder = out_folder
    else:
        with distributed.first_alone(download):
            dataset = load(
                data,
                root=root,
                image_size=image_size,
                download=download,
                classes=classes,
                lists=lists,
                drop_missing=drop_missing,
            )
        out.print(f"read {escape(dataset.in_words())}", soft_wrap=True, highlight=False)
        split = make_split(dataset, protocol or default_protocol(dataset), seed)
        out.print(f"split {escape(split.in_words())}", soft_wrap=True, highlight=False)
        folder = out_folder or Path("runs") / f"{Path(data).stem}-{bits}"
        if form is not None and objective != "adsq-likelihood":
            raise ValueError(f"--form: belongs to the objective adsq-likelihood, got {form!r} with {objective!r}")
        terms = make_objective(
            objective, similarity=similarity, image_nets=image_nets, **({} if form is None else {"form": form})
        )
        given = {"batch_size": batch_size, "peak_lr": lr}
        schedule = TrainingConfig.default(
            objective,
            epochs=epochs if epochs is not None else workflow.default_epochs(dataset),
            precision=precision,
            num_workers=workers,
            seed=seed,
            **{name: value for name, value in given.items() if value is not None},
        )
        trainer = workflow.train(
            folder,
            dataset,
            split,
            ModelConfig(bits, dataset.num_classes, dataset.image_shape, backbone),
            terms,
            schedule,
            weights=weights,
            device=target,
        )
    last = trainer.history[-1]
    out.print(f"trained {trainer.epoch} epochs on {len(trainer.indices):,} images: loss {last['loss']:.3f}", end="")
    out.print(
        f", {last['distinct_codes']} distinct codes, {last['saturation']:.0%} saturated, in {escape(str(folder))}"
    )
    out.print(f"next: adsq evaluate {escape(str(folder))}")


@command("adsq encode runs/digits-32 --images database", together=True)
def encode(
    run: Run,
    images: Annotated[str, typer.Option(help="database, query, training or all.")] = "database",
    kind: Kind = "average",
    out_file: Annotated[Path | None, typer.Option("--out", help="File to write; codes.safetensors in RUN.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images a step.", min=1)] = 256,
    device: Device = "auto",
    workers: Workers = 0,
) -> None:
    """Encode images of a run's data set to packed codes."""
    from adsq import distributed, workflow

    distributed.start()
    loaded = workflow.open_run(run, workflow.choose_device(device))
    path = out_file or (run if run.is_dir() else run.parent) / workflow.CODES_FILE
    codes = workflow.encode_to_file(path, loaded, run, images, kind, batch_size=batch_size, num_workers=workers)
    out.print(f"wrote {len(codes.packed):,} codes of {codes.about['num_bits']} bits to {escape(str(path))}")


@command("adsq index runs/digits-32")
def index(
    codes: Annotated[Path, typer.Argument(help="File that adsq encode wrote, or its folder.", show_default=False)],
    out_file: Annotated[Path | None, typer.Option("--out", help="File to write; index.adsq beside the codes.")] = None,
) -> None:
    """Build a search index from codes."""
    from adsq import workflow

    built = workflow.build_index(workflow.read_codes(codes))
    path = out_file or (codes if codes.is_dir() else codes.parent) / workflow.INDEX_FILE
    built.save(path)
    out.print(f"indexed {len(built):,} codes of {built.num_bits} bits in {escape(str(path))}")


@command("adsq search runs/digits-32/index.adsq --image picture.png --grid neighbours.png")
def search(
    index_file: Annotated[Path, typer.Argument(metavar="INDEX", help="File of adsq index.", show_default=False)],
    image: Annotated[list[Path], typer.Option(help="Picture to look for; may be given again.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="Number of neighbours.")] = 10,
    grid: Annotated[Path | None, typer.Option(help="PNG file to draw the neighbours in.")] = None,
    model: Annotated[Path | None, typer.Option(help="Folder or file of the model; as the index says.")] = None,
) -> None:
    """Find the nearest images of a picture."""
    from adsq import run_report, workflow
    from adsq.index import HammingIndex

    loaded = HammingIndex.load(index_file)
    pictures, codes = workflow.encode_pictures(loaded, image, model)
    distances, items = loaded.search(codes, k)
    dataset = workflow.open_indexed_data(loaded)
    for picture, row, found in zip(image, distances.tolist(), items.tolist(), strict=True):
        table = Table(title=escape(str(picture)), title_justify="left")
        for heading in ("rank", "distance", "item", "label", "path"):
            table.add_column(heading, justify="right" if heading in ("rank", "distance", "item") else "left")
        for rank, (distance, item) in enumerate(zip(row, found, strict=True), 1):
            if item >= 0:  # -1 pads where the index holds fewer than k codes
                label, path = workflow.describe(dataset, item)
                table.add_row(str(rank), str(distance), str(item), escape(label), escape(path))
        out.print(table)
    if grid is not None:
        run_report.draw_neighbours(grid, pictures, dataset, distances, items)
        out.print(f"wrote {escape(str(grid))}")


@command("adsq export runs/digits-32/index.adsq")
def export(
    index_file: Annotated[Path, typer.Argument(metavar="INDEX", help="File of adsq index.", show_default=False)],
    out_file: Annotated[Path | None, typer.Option("--out", help="File to write; codes.parquet beside INDEX.")] = None,
) -> None:
    """Write codes and ids to a Parquet file that DuckDB and ClickHouse search by the SQL of adsq.export.search_sql."""
    from adsq import workflow
    from adsq.index import HammingIndex

    loaded = HammingIndex.load(index_file)
    path = out_file or index_file.parent / workflow.PARQUET_FILE
    workflow.export(loaded, path)
    out.print(f"wrote {len(loaded):,} codes of {loaded.num_bits} bits to {escape(str(path))}")


@command("adsq evaluate runs/digits-32 --report runs/digits-32/report")
def evaluate(
    run: Run,
    kind: Kind = "average",
    k: Annotated[int | None, typer.Option("-k", help="Count the first k neighbours only; all of them.")] = None,
    ties: Annotated[str, typer.Option(help="index (lower number first) or expected (mean over orders).")] = "index",
    denominator: Annotated[
        str, typer.Option(help="all (relevant images), min (of those and k) or found (those among the first k).")
    ] = "all",
    gain: Annotated[str, typer.Option(help="Of nDCG: linear (s shared labels) or exponential (2^s - 1).")] = "linear",
    report: Annotated[Path | None, typer.Option(help="Folder to write pictures and report.html to.")] = None,
    device: Device = "auto",
    workers: Workers = 0,
) -> None:
    """Measure how well a run retrieves: mAP and its relatives, of queries against the database."""
    from adsq import run_report, workflow

    loaded = workflow.open_run(run, workflow.choose_device(device))
    rules = {"k": k, "ties": ties, "denominator": denominator, "gain": gain}
    scored = workflow.score(loaded, kind, num_workers=workers, **rules)
    folder = run if run.is_dir() else run.parent
    workflow.write_evaluation(folder / workflow.EVALUATION_FILE, scored, loaded)
    table = Table(show_header=False)
    for name, value in run_report.headline(scored.result):
        table.add_row(name, value)
    out.print(table)
    if report is not None:
        page = run_report.write(report, folder, loaded, scored)
        out.print(f"wrote {escape(str(page))}")


@command("adsq info")
def info() -> None:
    """Tell what every op would use on this machine, and why."""
    import torch

    from adsq import __version__, kernels

    out.print(f"adsq {__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    out.print(f"CPU threads {torch.get_num_threads()}, {torch.backends.cpu.get_cpu_capability()}; CUDA device {gpu}")
    table = Table(Column("op", no_wrap=True), "device", "uses", "why")
    rows = kernels.implementations()
    for device in ("CPU", "GPU"):
        for row in (row for row in rows if row.device == device):
            table.add_row(*row)
        table.add_section()
    out.print(table)


@command("adsq demo --out runs/demo")
def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Of the split and of training.")] = 0,
) -> None:
    """Train 32-bit ADSQ on handwritten digits, index, search, evaluate, and write a report."""
    from adsq import demo as walk

    walk.run(out_folder, seed, out.print)


def main() -> None:
    """Run the command line; --debug may stand anywhere in it."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    app(["--debug"] * (len(arguments) < len(sys.argv) - 1) + arguments)


if __name__ == "__main__":  # torchrun -m adsq.cli
    main()
