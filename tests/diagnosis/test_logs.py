"""Logs of other tools become histories: every format, and what is odd in them."""

import json
import math
import random

import pytest
import torch

from cliplab import Clipper, History
from cliplab.diagnosis import Naming, Unfinished, diagnose, read_log
from cliplab.diagnosis.logs.names import candidates

ROWS = [{"step": i, "grad_norm": 1.0 + i % 3, "loss": 3 - i / 100, "lr": 0.1} for i in range(60)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(rows, separator=","):
    cells = [list(rows[0]), *(row.values() for row in rows)]
    return "".join(separator.join(map(str, row)) + "\n" for row in cells)


def state(rows):
    return json.dumps({"global_step": 59, "log_history": rows, "stateful_callbacks": {}}, indent=2)


def columns(rows):
    return json.dumps({name: [row[name] for row in rows] for name in rows[0]})


def metrics(rows):
    """As metrics are kept by MLflow: one number a line."""
    return lines(
        {"key": name, "value": row[name], "timestamp": 0, "step": row["step"]}
        for name in ("loss", "grad_norm", "lr")
        for row in rows
    )


def flat(rows):
    names = ("grad_norm", "loss", "lr")
    return table([{"metric": n, "step": r["step"], "value": r[n]} for r in rows for n in names])


def read(text, **named):
    return read_log(text.encode(), Naming(**named))


FORMATS = {
    "JSON lines": lines,
    "CSV": table,
    "CSV with semicolons": lambda rows: table(rows, ";"),
    "CSV with tabs": lambda rows: table(rows, "\t"),
    "trainer_state.json": state,
    "a list": json.dumps,
    "a list on many lines": lambda rows: json.dumps(rows, indent=1),
    "columns": columns,
    "one number a line": metrics,
    "one number a line in CSV": flat,
    "nested": lambda rows: lines({"step": r.pop("step"), "train": r} for r in map(dict, rows)),
    "with Windows' line ends": lambda rows: table(rows).replace("\n", "\r\n"),
    "with a mark of UTF-8": lambda rows: "\ufeff" + lines(rows),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_same(name):
    log = read(FORMATS[name](ROWS))
    assert log.history.norm_before.tolist() == [row["grad_norm"] for row in ROWS]
    assert log.history.lr.tolist() == [0.1] * 60
    assert log.loss.tolist() == [row["loss"] for row in ROWS]
    assert log.steps.tolist() == list(range(60))
    assert log.columns["norm"].endswith("grad_norm")
    assert log.columns["threshold"] is None
    assert not log.history.clipped.any()
    assert log.notes == []


def test_numbers_in_exports_may_be_texts_and_may_not_be_finite():
    cells = ["NaN", "Infinity", "inf", " nan ", "1e-3", math.nan, math.inf, 7, "0.5"]
    log = read(lines({"step": i, "grad_norm": cell} for i, cell in enumerate(cells)))
    expected = torch.tensor(
        [math.nan, math.inf, math.inf, math.nan, 1e-3, math.nan, math.inf, 7, 0.5]
    )
    torch.testing.assert_close(log.history.norm_before, expected.double(), equal_nan=True)
    (finding,) = [f for f in diagnose(log.history) if f.name.startswith("non-finite")]
    assert finding.evidence["count"] == 6


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"step": 1, "grad_norm": "high"}', "column grad_norm: 'high' in row 1 is no number"),
        ('{"step": 1, "grad_norm": [1.0]}', "column grad_norm: '[1.0]' in row 1 is no number"),
        ('{"step": 1, "grad_norm": -1}', "column grad_norm: -1 at step 1 is no norm"),
        ('{"step": 1.5, "grad_norm": 1}', "column step: 1.5 is no number of a step"),
        ('{"step": NaN, "grad_norm": 1}', "column step: nan is no number of a step"),
        ('{"step": -3, "grad_norm": 1}', "column step: -3 is no number of a step"),
        ('{"grad_norm": 1, "total_norm": 1}', "the norm may be grad_norm or total_norm: name it"),
        ('{"a/grad_norm": 1, "b/grad_norm": 2}', "a/grad_norm or b/grad_norm: name it with --norm"),
        ('{"log_history": {"loss": 1}}', "expected a log in JSON"),
        ("[1, 2]", "expected a log in JSON"),
        ("grad_norm,grad_norm\n1,2\n", "expected one column grad_norm, got several"),
        ("PAR1\0\0", "not text"),
    ],
)
def test_what_is_no_log_is_refused_by_name(text, complaint):
    with pytest.raises(ValueError, match=r"^(?!.*Traceback)") as caught:
        read(text)
    assert complaint in str(caught.value)
    assert not isinstance(caught.value, Unfinished)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "an empty file"),
        (" \n", "an empty file"),
        ('{"config": {"lr": 0.1}}\n', "no column of gradient norms, name it with --norm"),
        ("step,loss\n", "columns of numbers: none"),
        ("step,loss\n1,2\n", "columns of numbers: step, loss"),
        ('{"log_history": [{"st', "not whole JSON"),
        ('{"step": 1, "gr', "not whole JSON"),
        ("[[" * 100_000, "nested too deep"),
    ],
)
def test_what_may_become_a_log_is_unfinished(text, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        read(text)
    assert isinstance(caught.value, Unfinished) or "deep" in complaint


def test_rows_of_evaluations_and_empty_cells_are_no_steps():
    rows = [{**row, "eval_loss": None} for row in ROWS]
    rows[10]["grad_norm"] = None
    rows.insert(30, {"step": 29, "eval_loss": 9.0, "val/grad_norm": 5.0})
    rows.append({"step": 59, "train_loss": 2.5, "train_runtime": 1.0})
    log = read(lines(rows))
    assert log.steps.tolist() == [i for i in range(60) if i != 10]
    assert log.notes == [
        "grad_norm is empty in 1 row: left out",
        "rows are 1 to 2 (mostly 1) steps apart: what happened between them is not seen",
    ]
    assert log.columns["loss"] == "loss"


def test_after_a_resume_the_later_row_counts():
    again = [{**row, "grad_norm": 9.0, "loss": 0.0} for row in ROWS[40:50]]
    log = read(lines(ROWS[:50] + again + ROWS[50:]))
    assert log.steps.tolist() == list(range(60))
    assert log.history.norm_before[40:50].tolist() == [9.0] * 10
    assert log.loss[40:50].tolist() == [0.0] * 10
    assert log.history.norm_before[39] == ROWS[39]["grad_norm"]
    assert log.notes == ["10 rows of a step that is logged again, as after a resume: left out"]


def test_a_head_that_a_resumed_run_wrote_again_is_no_row():
    log = read(table(ROWS[:30]) + table(ROWS[30:]))
    assert (len(log.history), log.notes) == (60, [])


def test_rows_out_of_order_are_sorted():
    shuffled = random.Random(0).sample(ROWS, 60)
    log = read(lines(shuffled))
    assert log.history.norm_before.tolist() == [row["grad_norm"] for row in ROWS]
    assert log.notes == ["rows out of order: sorted by step"]


def test_a_step_that_begins_anew_in_every_epoch_is_not_believed():
    rows = [{**row, "epoch": epoch} for epoch in range(3) for row in ROWS]
    with pytest.raises(ValueError, match="column step repeats itself in 120 of 180 rows"):
        read(lines(rows))
    log = read(lines(rows), step="none")
    assert (len(log.history), log.history.first_step) == (180, 0)
    assert log.notes == ["no column of steps: rows are counted"]


def test_a_log_of_every_tenth_step_keeps_their_numbers():
    log = read(lines({**row, "step": 100 + 10 * i} for i, row in enumerate(ROWS)))
    assert log.steps.tolist() == list(range(100, 700, 10))
    assert log.history.first_step == 100
    assert log.notes == ["rows are 10 steps apart: what happened between them is not seen"]


def test_lines_that_a_process_left_torn_are_left_out_and_told():
    text = lines(ROWS[:20]) + '{"step": 20, "grad\n' + lines(ROWS[21:]) + '{"step": 60, "grad_n'
    log = read(text)
    assert log.steps.tolist() == [i for i in range(60) if i != 20]
    assert log.notes[:2] == [
        "the last line is not whole yet: left out",
        "1 line (the first: line 21) without a JSON object: left out",
    ]
    log = read(table(ROWS[:20]) + "20,1\n" + table(ROWS)[18:] + "60,2")
    assert log.notes[0] == "the last line is not whole yet: left out"
    assert "(the first: row 22) without 4 cells" in log.notes[1]
    letter = "é".encode()[:1]
    assert len(read_log(lines(ROWS).encode() + b'{"host": "' + letter).history) == 60


def test_the_end_of_a_growing_line_is_waited_for():
    text = table(ROWS) + "60,2.5,1,0.1"
    assert len(read(text).history) == 61
    assert len(read_log(text.encode(), growing=True).history) == 60
    with pytest.raises(Unfinished, match="no whole line yet"):
        read_log(b"step,grad_no", growing=True)


def test_a_log_that_begins_torn_is_read():
    log = read('{"step": 0, "gra\n' + lines(ROWS[1:]))
    assert len(log.history) == 59


def test_a_threshold_is_a_number_or_a_column():
    rows = [{**row, "max_grad_norm": 2.0} for row in ROWS]
    by_name, given = read(lines(rows)), read(lines(ROWS), threshold=2.0)
    for log in (by_name, given):
        assert log.history.clipped.tolist() == [row["grad_norm"] > 2 for row in ROWS]
        assert log.history.factor.max() == 1
        assert log.history.factor.min() == pytest.approx(2 / 3)
    assert (by_name.columns["threshold"], given.columns["threshold"]) == ("max_grad_norm", 2.0)
    assert read(lines(rows), threshold="none").history.threshold.isinf().all()
    assert read(lines([{**r, "max_grad_norm": 0} for r in ROWS])).history.threshold.isinf().all()


def test_columns_are_named_where_a_guess_would_be_wrong():
    rows = [{"n": i, "g": 1.0, "h": 2.0, "eta": 0.5, "cost": 3.0} for i in range(5, 9)]
    log = read(lines(rows), norm="h", step="n", lr="eta", loss="cost")
    assert log.history.norm_before.tolist() == [2.0] * 4
    assert (log.history.first_step, log.history.lr[0], log.loss[0]) == (5, 0.5, 3.0)
    with pytest.raises(ValueError, match="--norm x: no such column; columns of numbers: n, g, h"):
        read(lines(rows), norm="x")
    with pytest.raises(ValueError, match="--lr-column x: no such column"):
        read(lines(rows), norm="h", lr="x")


def test_an_optional_column_that_cannot_be_told_is_left_out_and_told():
    rows = [{"step": i, "grad_norm": 1.0, "a/loss": 1.0, "b/loss": 2.0} for i in range(4)]
    log = read(lines(rows))
    assert log.loss is None
    assert log.notes == ["no loss used, it may be a/loss or b/loss: name it with --loss"]
    assert read(lines(rows), loss="b/loss").loss.tolist() == [2.0] * 4


@pytest.mark.parametrize(
    ("role", "name"),
    [
        *(("norm", n) for n in ("grad_norm", "gradient_norm", "clip/norm_before", "total_norm")),
        *(("norm", n) for n in ("train/grad_norm", "gnorm", "grad-norm", "actor/grad_norm")),
        *(("norm", n) for n in ("grad_2.0_norm_total", "optim/total_grad_norm", "gradnorm")),
        *(
            ("norm", n)
            for n in ("l2_norm/grad/global", "my run - grad_norm", "GradNorm/global_norm")
        ),
        *(
            ("loss", n)
            for n in ("loss", "train/loss", "loss_metrics/global_avg_loss", "train_loss")
        ),
        *(("lr", n) for n in ("lr", "learning_rate", "lr-AdamW", "optim/learning_rate_group0")),
        *(("loss", n) for n in ("data/actor/pg_loss", "train/CE loss", "reduced_train_loss")),
        *(("lr", n) for n in ("optim/LR (group 0)", "learning-rate", "lr-AdamW")),
        *(("norm", n) for n in ("optim/total grad norm", "data/actor/grad_norm")),
        *(("step", n) for n in ("step", "global_step", "iter", "_step", "Step", "num_updates")),
        *(("step", n) for n in ("training/global_step", "iteration", "trainer/global_step")),
        *(("threshold", n) for n in ("threshold", "clip/threshold", "max_grad_norm", "grad_clip")),
    ],
)
def test_names_that_trainers_use_are_known(role, name):
    others = [
        "epoch",
        "_timestamp",
        "val/loss",
        "eval_loss",
        "tokens_per_second",
        "grad_norm_layer",
    ]
    others += ["grad-norm vs samples", "my run - grad_norm__MIN", "grad_norm/fc.weight"]
    assert candidates(role, [*others, name]) == [name]


def test_a_guess_passes_over_what_is_no_number():
    log = read(lines({**row, "lr": [0.1, 0.2], "loss": "low"} for row in ROWS))
    assert (log.columns["lr"], log.columns["loss"], log.loss) == (None, None, None)
    with pytest.raises(ValueError, match="column loss: 'low' in row 1 is no number"):
        read(lines({**row, "loss": "low"} for row in ROWS), loss="loss")


def test_what_a_clipper_logged_is_taken_as_it_was():
    model = torch.nn.Linear(4, 2)
    clipper = Clipper(model, 0.5, nonfinite="skip")
    rows = []
    for i in range(20):
        for p in model.parameters():
            p.grad = torch.full_like(p, math.nan if i == 7 else 0.1 * i)
        clipper.clip()
        rows.append({"step": i, "loss": 1.0, "grad_norm": 0.1, **clipper.history.latest("clip")})
    log, own = read(lines(rows)), clipper.history
    assert log.columns["norm"] == "clip/norm_before"
    for column in ("norm_before", "norm_after", "threshold", "factor", "clipped", "skipped"):
        mine, theirs = getattr(log.history, column), getattr(own, column)
        torch.testing.assert_close(mine, theirs.to(mine), rtol=0, atol=0, equal_nan=True)


def test_a_share_of_the_parts_becomes_a_step_that_is_clipped_or_not():
    rows = [{"clip/norm_before": 1.0, "clip/clipped": i / 4} for i in range(5)]
    log = read(lines(rows))
    assert log.history.clipped.tolist() == [False, False, True, True, True]
    assert "a step counts as clipped if 50% of its parts were" in log.notes


def test_a_history_is_read_as_ever(tmp_path):
    history = History(["a", "b"])
    for i in range(3):
        history.append(torch.tensor([4.0, 1, 1, 0.25, 1, 0])[:, None].repeat(1, 2), 0.5 + i)
    history.save(tmp_path / "h.pt"), history.to_csv(tmp_path / "h.csv")
    for name in ("h.pt", "h.csv"):
        log = read_log(tmp_path / name)
        assert torch.equal(log.history.rows, history.rows)
        assert (log.history.labels, log.columns, log.notes) == (["a", "b"], {}, [])
        with pytest.raises(ValueError, match="says itself which column is what"):
            read_log(tmp_path / name, Naming(norm="norm_before"))
    with pytest.raises(ValueError, match="not from standard input"):
        read_log((tmp_path / "h.pt").read_bytes())


def test_a_history_that_is_just_written_again_is_waited_for(tmp_path):
    history = History(scalar=True)
    history.append(torch.ones(6, 1), None)
    history.save(tmp_path / "h.pt")
    data = (tmp_path / "h.pt").read_bytes()
    for part in (b"", data[: len(data) // 2]):
        (tmp_path / "h.pt").write_bytes(part)
        with pytest.raises(Unfinished, match="not a saved history"):
            read_log(tmp_path / "h.pt", growing=True)
        with pytest.raises(ValueError, match="not a saved history") as caught:
            read_log(tmp_path / "h.pt")
        assert not isinstance(caught.value, Unfinished)


def test_a_history_with_gaps_is_a_table_of_norms():
    log = read("step,norm_before,threshold\n0,1,2\n10,4,2\n")
    assert (log.steps.tolist(), log.history.clipped.tolist()) == ([0, 10], [False, True])


@pytest.mark.nightly
def test_a_hundred_megabytes_are_read(tmp_path):
    path = tmp_path / "log.jsonl"
    with open(path, "w") as file:
        for i in range(900_000):
            file.write(f'{{"step": {i}, "loss": 3.123456, "lr": 0.001, "grad_norm": 1.{i:06}, ')
            file.write('"tokens_per_second": 123456.7, "memory": 12345678}\n')
    assert path.stat().st_size > 1e8
    assert len(read_log(path).history) == 900_000


def test_a_finding_names_steps_by_their_own_numbers():
    norms = [1.0 + i % 3 / 10 for i in range(300)]
    norms[200] = 60.0
    log = read(lines({"step": 50 * (i + 1), "grad_norm": norm} for i, norm in enumerate(norms)))
    (finding,) = diagnose(log.history, steps=log.steps)
    assert (finding.name, finding.evidence["steps"]) == ("isolated spikes", [10050])
    with pytest.raises(ValueError, match="steps must be whole numbers, ascending, one for each"):
        diagnose(log.history, steps=log.steps[1:])
    with pytest.raises(ValueError, match="steps must be whole numbers"):
        diagnose(log.history, steps=log.steps.flip(0))
