"""Training and encoding by several processes: what one process does."""

from __future__ import annotations

import pickle
import re
import shutil
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from adsq.checkpoint import load_trainer, save_checkpoint
from adsq.distributed import Share
from adsq.encoding import encode_in_parts
from adsq.training import Trainer
from distributed_cases import (
    BATCH,
    COUNTS,
    ENCODED,
    IMAGES,
    NORMS,
    OBJECTIVES,
    RESUMED,
    Backbone,
    Watched,
    encode,
    encoder,
    fail,
    gathered,
    items,
    make_trainer,
    normalized,
    paired,
    pictures,
    state,
    work,
)

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")
LIMIT = 240  # seconds, for what takes some 20
EXACT = {"atol": 1e-12, "rtol": 1e-12}
ROUNDED = {"atol": 1e-6, "rtol": 1e-5}
TRAINED = {"atol": 1e-4, "rtol": 1e-4}  # rounding, grown in eight steps of Adam


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give what one process finds, and the folder of its checkpoints after an epoch and of an encoding that stopped."""
    folder = tmp_path_factory.mktemp("alone")
    found: dict[str, Any] = {"folder": folder}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in OBJECTIVES:
        trainer = make_trainer(name)

        def save(trainer: Trainer, name: str = name) -> None:
            if trainer.epoch == 1:
                save_checkpoint(folder / name, trainer)

        trainer.fit(after_epoch=save)
        found[name] = state(trainer)
    with pytest.raises(OSError, match="cannot be read"):
        encode(folder / "stopped", 37, Watched(pictures(50), 17, fail))
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="module", params=[1, 2, 4], ids="{0} processes".format)
def found(request: Any, alone: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """Give what `distributed_cases.work` found on each rank, and the folder in which the processes were then killed."""
    world_size, folder = request.param, tmp_path_factory.mktemp("several")
    shutil.copytree(alone["folder"], folder, dirs_exist_ok=True)
    # Forked from a process that has imported everything and done nothing.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["adsq.checkpoint", "adsq.encoding"])
    options: dict[str, Any] = {"nprocs": world_size, "join": False, "start_method": "forkserver"}
    processes = multiprocessing.start_processes(work, (world_size, folder), **options)
    deadline = time.monotonic() + LIMIT
    try:
        with pytest.raises(multiprocessing.ProcessExitedException, match="SIGKILL"):
            while not processes.join(timeout=5):
                assert time.monotonic() < deadline, "the processes hang"
    finally:
        for process in processes.processes:
            process.kill()
    ranks = [pickle.loads((folder / f"found-{rank}").read_bytes()) for rank in range(world_size)]
    return [each | {"folder": folder} for each in ranks]


def assert_close(got: dict[str, Any], wanted: dict[str, Any], **tolerances: float) -> None:
    """Compare tensors under the same names."""
    assert got.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], **tolerances, msg=lambda text, name=name: f"{name}: {text}")


def joined(found: list[dict[Any, Any]], part: str, case: Any, spread: set[str]) -> dict[str, torch.Tensor]:
    """Put what is spread over the ranks together; the rest must be the same on all, bit for bit."""
    ranks = [on_rank[part][case] for on_rank in found]
    whole = {}
    for name, first in ranks[0].items():
        if name in spread:
            whole[name] = torch.cat([rank[name] for rank in ranks])
        else:
            assert all(torch.equal(rank[name], first) for rank in ranks), name
            whole[name] = first
    return whole


@pytest.mark.parametrize("count", COUNTS)
def test_gradients_go_through_the_gather(found: list, count: int) -> None:
    assert_close(joined(found, "gather", count, {"gradient"}), gathered(count), **EXACT)


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "not balanced"])
@pytest.mark.parametrize("count", COUNTS)
def test_pairs_of_all_processes(found: list, count: int, balanced: bool) -> None:
    tolerances = ROUNDED if balanced else EXACT  # the share of similar pairs is float32
    assert_close(joined(found, "pairs", (count, balanced), {"u", "v"}), paired(count, balanced), **tolerances)


@pytest.mark.parametrize("count", COUNTS[:-1])
@pytest.mark.parametrize("norm", NORMS)
def test_batch_norm_over_all_processes(found: list, norm: str, count: int) -> None:
    spread = {"0 rows", "1 rows", "0 gradient", "1 gradient", "evaluated"}
    assert_close(joined(found, "norm", (norm, count), spread), normalized(count, *NORMS[norm]), **EXACT)


def assert_same_training(ranks: list[dict[str, Any]], wanted: dict[str, Any]) -> None:
    """Compare weights, banks, codes and metrics: bit for bit between ranks, and with one process up to rounding."""
    for rank in ranks[1:]:
        assert_close(rank["tensors"], ranks[0]["tensors"], atol=0, rtol=0)
        assert rank["history"] == ranks[0]["history"]
    assert_close(ranks[0]["tensors"], wanted["tensors"], **TRAINED)
    for got, record in zip(ranks[0]["history"], wanted["history"], strict=True):
        assert got == pytest.approx(record, rel=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_ends_as_with_one_process(found: list, alone: dict, name: str) -> None:
    assert_same_training([on_rank[name] for on_rank in found], alone[name])


@pytest.mark.parametrize("name", RESUMED)
def test_several_processes_go_on_with_the_run_of_one(found: list, alone: dict, name: str) -> None:
    assert_same_training([on_rank[name, "resumed"] for on_rank in found], alone[name])


@pytest.mark.parametrize("name", RESUMED)
def test_one_process_goes_on_with_the_run_of_several(found: list, alone: dict, name: str) -> None:
    resumed, _ = load_trainer(found[0]["folder"] / f"{name} of several", make_trainer(name).dataset, backbone=Backbone)
    assert resumed.epoch == 1
    resumed.fit()
    assert_same_training([state(resumed)], alone[name])


def test_each_image_is_read_by_one_process(found: list) -> None:
    """In an epoch of all images, after those whose pixels are measured, which are all too."""
    read = [on_rank["read"] for on_rank in found]
    assert sorted(chain(*read)) == sorted(2 * list(range(IMAGES)))
    steps = -(-IMAGES // BATCH)
    assert max(map(len, read)) - min(map(len, read)) <= steps + 1


def test_processes_draw_for_dropout_apart(found: list) -> None:
    draws = [on_rank["drawn"] for on_rank in found]
    assert len({draw for rank in draws for draw in rank}) == sum(map(len, draws)) > 0
    for on_rank in found[1:]:
        assert_close(on_rank["after drawing"]["tensors"], found[0]["after drawing"]["tensors"], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("config", r"ValueError: seed: expected the same on all ranks, got 0 on rank 0 and 7 on rank \d"),
        ("indices", r"ValueError: indices: expected the same on all ranks, got '\[27\] with SHA-256 .* on rank \d"),
        ("objective", "ValueError: symmetric: expected the same .* 0.5 on rank 0 and 0.25"),
        ("labels", r"ValueError: labels: expected the same .*'\[27\] with SHA-256"),
        ("other kind", r"ValueError: kind: expected the same on all ranks, got 'f' on rank 0 and 'g' on rank \d"),
        ("kind", "ValueError: kind: expected one of average, f, g, got 'h'"),
        ("no folder", r"FileNotFoundError: \[Errno 2\] no such folder: .*/not'"),
        ("stale", "ValueError: .*/stopped: holds unfinished codes with kind f, expected g: finish those, or delete"),
    ],
)
def test_a_mistake_ends_all_processes_alike(found: list, mistake: str, words: str) -> None:
    lines = {on_rank["mistakes"][mistake] for on_rank in found}
    if len(found) == 1 and "expected the same" in words:
        pytest.skip("one process cannot differ")
    assert len(lines) == 1 and re.match(words, lines.pop())


@pytest.mark.parametrize("count", ENCODED)
def test_codes_are_in_order(found: list, count: int) -> None:
    wanted = encoder().encode(pictures(50), items(count), kind="f", batch_size=5)
    for on_rank in found:
        assert torch.equal(on_rank["encoded"][count], wanted) and wanted.dtype == torch.uint8


def test_encoding_goes_on_where_it_stopped(found: list) -> None:
    wanted = encoder().encode(pictures(50), items(37), kind="f", batch_size=5)
    read = [on_rank["encoded images"] for on_rank in found]
    assert list(chain(*read)) == items(37)[15:].tolist(), "three batches were done; the ranks share the rest in order"
    assert all(torch.equal(on_rank["encoded after a stop"], wanted) for on_rank in found)
    told = found[0]["told"]
    assert told[0] >= 15 and told == sorted(told) and told[-1] == 37
    assert all(on_rank["told"] == [] for on_rank in found[1:])


@pytest.mark.parametrize("batch_size", [5, 4])
def test_encoding_goes_on_after_a_kill(found: list, tmp_path: Path, batch_size: int) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(found[0]["folder"] / "killed", folder)
    dataset = Watched(pictures(50))
    codes = encode(folder, 37, dataset, batch_size=batch_size)
    assert torch.equal(codes, encoder().encode(pictures(50), items(37), kind="f", batch_size=5))
    assert len(dataset.read) < 37, "at least the rank that was killed had noted a batch"
    assert encode(folder, 37, Watched(pictures(50), 0, fail)).equal(codes), "nothing is left to do"


@pytest.mark.parametrize(
    ("torn", "left"),
    [
        ("", 37),
        ("0 5\n", 32),
        ("0 5\n1", 32),
        ("0 5\n5 30", 32),
        ("10 15\n", 32),
        ("0 5\n3 12\n", 27),
        ("0 37\n", 0),
        ("35 37\n", 35),
    ],
)
def test_only_whole_lines_count_as_done(tmp_path: Path, torn: str, left: int) -> None:
    folder = tmp_path / "codes"
    codes = encode(folder, 37)
    for log in folder.glob("done-*"):
        log.unlink()
    (folder / "done-x").write_text(torn)
    dataset = Watched(pictures(50))
    assert torch.equal(encode(folder, 37, dataset), codes) and len(dataset.read) == left


def test_a_folder_that_was_not_ready_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    folder.mkdir()
    (folder / "codes").write_bytes(b"x")
    (folder / "done-x").write_text("0 7\n")
    assert torch.equal(encode(folder, 7), encoder().encode(pictures(50), items(7), kind="f", batch_size=5))
    (folder / "about.json").write_text("{")
    with pytest.raises(ValueError, match="codes: expected a work folder of adsq encode"):
        encode(folder, 7)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("codes", b"abc", "codes.codes: damaged \\(3 bytes, expected 74\\): delete the folder"),
        ("codes", b"x" * 75, "codes.codes: damaged \\(75 bytes"),
        ("done-x", b"0 5\n1 x\n", "done-x: damaged .*'x'.*: delete the folder"),
        ("done-x", b"0 5\n10\n", "done-x: damaged .*: delete the folder"),
        ("about.json", b"[1]", "codes: expected a work folder of adsq encode .about.json holds no facts.: delete it"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    folder = tmp_path / "codes"
    encode(folder, 37)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        encode(folder, 37)


def test_codes_of_something_else_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    codes = encode(folder, 37, facts={"data": {"source": "pictures", "size": (1, 2)}})
    other = encoder()
    torch.nn.init.zeros_(other.img_net_f.hashing.bias)
    for model, which, facts, name in (
        (other, items(37), {}, "model"),
        (encoder(), items(37).flip(0), {}, "items"),
        (encoder(), items(37), {"data": {"source": "pictures", "size": (2, 2)}}, "data"),
        (encoder(), items(36), {}, "rows"),
    ):
        facts = {"data": {"source": "pictures", "size": (1, 2)}} | facts
        with pytest.raises(ValueError, match=f"codes: holds unfinished codes with {name} .*, expected .* delete"):
            encode_in_parts(model, pictures(50), which, folder, kind="f", batch_size=5, facts=facts)
    assert torch.equal(encode(folder, 37, facts={"data": {"source": "pictures", "size": (1, 2)}}), codes)


def test_rows_are_noted_now_and_then(tmp_path: Path) -> None:
    told: list[int] = []
    encode_in_parts(encoder(), pictures(50), items(37), tmp_path / "codes", batch_size=5, progress=told.append)
    assert told == [0, 37], "in much less than SECONDS_A_MARK"
    (log,) = (tmp_path / "codes").glob("done-*")
    assert log.read_text() == "0 37\n"


@pytest.mark.parametrize("count", range(9))
def test_shares_of_rows(count: int) -> None:
    for world_size in (1, 2, 3, 4):
        each, more = divmod(count, world_size)
        shares = [
            Share(tuple(each + (rank < more) for rank in range(world_size)), number) for number in range(world_size)
        ]
        rows = torch.arange(count)
        assert torch.cat([share.own_rows(rows) for share in shares]).tolist() == rows.tolist()
        for share in shares:
            assert sorted([*share.own_rows(rows), *share.other_rows(rows)]) == rows.tolist()
            assert share.times(2).count == 2 * count
