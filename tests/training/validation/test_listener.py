"""Listeners: files, kept checkpoints, votes, resuming. The rank of one answer makes the values."""

from __future__ import annotations

import json
from dataclasses import fields

import pyarrow.parquet as pq
import pytest

from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource
from raydist.errors import ConfigError
from raydist.evaluation.mirror import Mirror, read_lines
from raydist.records import Query, Run
from raydist.training.spec import Aggregate, Listener
from raydist.training.validation.files import ListenerFiles
from raydist.training.validation.listener import (
    AggregatorValidationListener,
    Listeners,
    ValidationListener,
)
from raydist.training.validation.retrieval import Ranks, Task, validate

QUERIES = [Query("q1", "one"), Query("q2", "two")]
TASK = Task(QUERIES, {"q1": {"yes": 1}, "q2": {"yes": 1}})


class Model:
    """A model that is the step it was trained to."""

    def __init__(self):
        self.step = 0
        self.saved = []

    def save(self, folder, settings):
        self.saved.append(self.step)
        (folder / "model.txt").write_text(str(self.step))
        (folder / "sub").mkdir()
        (folder / "sub" / "raydist.json").write_text(json.dumps(settings))


def by_rank(ranks):
    """Retrieves so that the answer is at `ranks[step]` for q1 and first for q2; 0: NaN."""

    def retrieve(model, queries):
        rank = ranks[model.step]
        if rank == 0:
            return None
        docs = [f"no{i}" for i in range(rank - 1)] + ["yes"]
        return Run.from_lists([("q1", docs, list(range(len(docs), 0, -1))), ("q2", ["yes"], [1.0])])

    return retrieve


def train(listener, model, steps, start=0):
    """Calls a listener as the loop does; returns the step at which it wanted to stop."""
    for step in range(start, steps + 1):
        model.step = step
        if listener.after_step(step, model):
            return step
    return None


def make(folder, ranks, /, id="dev", **options):
    options = {"interval": 10, **options}
    names = [field.name for field in fields(Listener) if field.name in options]
    spec = listener(**{name: options.pop(name) for name in names})
    names = [field.name for field in fields(ListenerFiles) if field.name in options]
    files = ListenerFiles(folder, id, **{name: options.pop(name) for name in names})
    return ValidationListener(files, spec, TASK, by_rank(ranks), **options)


def listener(**options):
    options = {"metrics": {"RR": True, "Success@1": False}, **options}
    sources = {"corpus": CorpusSource, "queries": QueriesSource, "qrels": QrelsSource}
    return Listener(**{name: source(path=("x",)) for name, source in sources.items()}, **options)


def aggregator(listeners, folder, /, id="m", hooks=(), **options):
    spec = Aggregate(listeners=[each.id for each in listeners], **options)
    return AggregatorValidationListener(ListenerFiles(folder, id), spec, listeners, hooks=hooks)


RANKS = {0: 4, 10: 2, 20: 3, 30: 2, 40: 1, 50: 2, 60: 2, 70: 5}


def lines(folder, id="dev"):
    return [json.loads(text) for text in (folder / id / "history.jsonl").read_text().splitlines()]


def test_the_files_of_a_run_are_these(tmp_path, golden):
    train(make(tmp_path, RANKS, early_stop=30), Model(), 70)
    golden("listener/history.jsonl", (tmp_path / "dev/history.jsonl").read_text())
    golden("listener/info.json", (tmp_path / "dev/info.json").read_text())
    golden("listener/settings.json", (tmp_path / "dev/best/RR/settings.json").read_text())


def test_the_best_checkpoint_of_a_kept_measure_is_there_and_only_that(tmp_path):
    model = Model()
    listener = make(tmp_path, RANKS)
    assert train(listener, model, 70) is None
    assert (tmp_path / "dev/best/RR/model.txt").read_text() == "40"
    assert model.saved == [0, 10, 40]
    assert sorted(p.name for p in (tmp_path / "dev/best").iterdir()) == ["RR"]
    info = json.loads((tmp_path / "dev/info.json").read_text())
    assert info == {"RR": {"value": 1.0, "step": 40}, "Success@1": {"value": 1.0, "step": 40}}
    settings = json.loads((tmp_path / "dev/best/RR/settings.json").read_text())
    assert settings == {"listener": "dev", "key": "RR", "value": 1.0, "step": 40}
    assert not list((tmp_path / "dev").glob(".*"))


def test_it_stops_when_the_newest_kept_best_is_old_enough(tmp_path):
    assert train(make(tmp_path / "a", RANKS, early_stop=30), Model(), 70) == 70
    assert train(make(tmp_path / "b", RANKS, early_stop=20), Model(), 70) == 30
    assert train(make(tmp_path / "c", RANKS, early_stop=20, warmup=20), Model(), 70) == 60


def test_per_query_values_are_a_table_of_each_evaluation(tmp_path):
    train(make(tmp_path, RANKS), Model(), 20)
    table = pq.read_table(tmp_path / "dev/per_query/step-00000020.parquet")
    assert table.to_pydict() == {"query_id": ["q1", "q2"], "RR": [1 / 3, 1], "Success@1": [0, 1]}


@pytest.mark.parametrize("cut", [5, 10, 25, 40, 69])
def test_a_resumed_run_takes_the_same_decisions_and_leaves_the_same_files(tmp_path, cut):
    straight = make(tmp_path / "straight", RANKS, early_stop=30)
    stopped = train(straight, Model(), 100)
    broken = make(tmp_path / "broken", RANKS, early_stop=30)
    states = {}
    model = Model()
    for step in range(70):
        model.step = step
        broken.after_step(step, model)
        states[step] = json.loads(json.dumps(broken.state_dict()))
    resumed = make(tmp_path / "broken", RANKS, early_stop=30)
    resumed.load_state_dict(states[cut])
    assert train(resumed, Model(), 100, start=cut + 1) == stopped == 70
    for name in ("dev/history.jsonl", "dev/info.json", "dev/best/RR/model.txt"):
        assert (tmp_path / "broken" / name).read_bytes() == (
            tmp_path / "straight" / name
        ).read_bytes()


def test_a_run_that_starts_again_from_nothing_leaves_no_line_of_the_first_attempt(tmp_path):
    train(make(tmp_path, RANKS), Model(), 30)
    train(make(tmp_path, RANKS), Model(), 10)
    assert [line["step"] for line in lines(tmp_path)] == [0, 10]


def test_nan_is_never_a_best_and_is_an_error_event(tmp_path, capsys):
    mirror = Mirror(tmp_path / "record")
    listener = make(tmp_path, {0: 2, 10: 0, 20: 3}, mirror=mirror)
    train(listener, Model(), 20)
    assert [line["RR"] for line in lines(tmp_path)] == [0.75, "NaN", pytest.approx(2 / 3)]
    assert listener.state.best["RR"].step == 0 and listener.state.failures == 2
    assert "step 10: RR is not a number" in capsys.readouterr().err
    events = [record for record, _ in read_lines(tmp_path / "record/tracking.jsonl")]
    assert {"warning.dev": "validation dev, step 10: RR is not a number"} in [
        e.get("values") for e in events
    ]


def test_values_bests_and_kept_checkpoints_go_into_the_record(tmp_path):
    train(make(tmp_path, RANKS, mirror=Mirror(tmp_path / "record")), Model(), 20)
    events = [record for record, _ in read_lines(tmp_path / "record/tracking.jsonl")]
    values = [e["values"] for e in events if e["event"] == "metrics"]
    assert [v["dev/RR"] for v in values] == pytest.approx([0.625, 0.75, 2 / 3])
    assert [v["dev/best/RR"] for v in values] == [0.625, 0.75, 0.75]
    assert values[0]["dev/quartiles/RR median"] == 0.625
    models = [(e["name"], e["step"], e["params"]["key"]) for e in events if e["event"] == "model"]
    assert models == [("dev/RR", 0, "RR"), ("dev/RR", 10, "RR")]
    tables = [(e["file"], e["columns"]) for e in events if e["event"] == "table"]
    names = [f"validation/dev/{name}.json" for name in ("hardest", "changed")]
    assert [name for name, _ in tables[:5]] == [names[0], names[0], names[1], names[0], names[1]]
    assert tables[0][1] == {
        "query_id": ["q1", "q2"],
        "query": ["one", "two"],
        "RR": [0.25, 1.0],
        "Success@1": [0.0, 1.0],
    }
    assert tables[2][1] == {
        "query_id": ["q1"],
        "query": ["one"],
        "before": [0.25],
        "RR": [0.5],
        "change": [0.25],
    }


def test_a_run_that_ends_below_its_start_says_so_loudly(tmp_path, capsys):
    train(Listeners([make(tmp_path, RANKS)], steps=70), Model(), 70)
    output = capsys.readouterr().err
    assert "RR ENDS BELOW ITS START: 0.6000 at step 70, 0.6250 before training" in output
    assert "its best is step 40" in output
    train(Listeners([make(tmp_path / "x", RANKS)], steps=60), Model(), 60)
    assert "ENDS BELOW" not in capsys.readouterr().err


def test_hooks_are_called_before_and_after_with_step_model_and_results(tmp_path):
    seen = []
    hook = (lambda *args: seen.append(("before", *args)), lambda *args: seen.append(args))
    model = Model()
    train(make(tmp_path, RANKS, hooks=[hook, (None, None)]), model, 10)
    assert seen[0] == ("before", 0, model, None) and seen[2] == ("before", 10, model, None)
    assert seen[3][:2] == (10, model) and seen[3][2].means["RR"] == 0.75


def test_listeners_stop_when_all_that_have_a_vote_agree(tmp_path):
    flat = dict.fromkeys(RANKS, 2)
    early = lambda: make(tmp_path, flat, id="early", early_stop=20)  # noqa: E731
    silent = lambda: make(tmp_path, RANKS, id="silent")  # noqa: E731
    late = lambda: make(tmp_path, RANKS, id="late", early_stop=30)  # noqa: E731
    assert train(Listeners([silent()]), Model(), 70) is None
    assert train(Listeners([early(), silent()]), Model(), 70) == 20
    assert train(Listeners([late(), early()]), Model(), 70) == 70


def test_an_aggregate_watches_the_mean_and_decides_for_its_listeners(tmp_path):
    flat = dict.fromkeys(RANKS, 2)

    def both(agree, folder):
        a = make(tmp_path / folder, flat, id="a", early_stop=20)
        b = make(tmp_path / folder, RANKS, id="b", early_stop=30)
        mean = aggregator([a, b], tmp_path / folder, id="mean", agree=agree)
        return Listeners([mean, a, b], steps=70)

    assert train(both("all", "1"), Model(), 70) == 70
    assert train(both("any", "2"), Model(), 70) == 20
    info = json.loads((tmp_path / "1/mean/info.json").read_text())
    assert info["RR"] == {"value": (0.75 + 1) / 2, "step": 40}
    assert (tmp_path / "1/mean/best/RR/model.txt").read_text() == "40"
    first = lines(tmp_path / "1", "mean")[0]
    assert first["RR"] == (0.75 + 0.625) / 2 and first["step"] == 0


def test_the_last_step_is_evaluated_wherever_it_falls(tmp_path):
    ranks = {**RANKS, 33: 1}
    a, b = (make(tmp_path, ranks, id=id) for id in "ab")
    listeners = Listeners([a, b, aggregator([a, b], tmp_path)], steps=33)
    assert listeners.due(33)
    train(listeners, Model(), 33)
    for id in ("a", "b", "m"):
        assert [line["step"] for line in lines(tmp_path, id)] == [0, 10, 20, 30, 33]
        assert (tmp_path / id / "best/RR/model.txt").read_text() == "33"


def test_an_aggregate_stops_by_its_own_mean_at_its_own_interval_and_calls_its_hooks(tmp_path):
    calls = []

    def before(step, model, results):
        assert results is None
        calls.append(step)

    def after(step, model, results):
        calls.append((step, results.means["RR"]))

    a, b = (make(tmp_path, RANKS, id=id) for id in "ab")
    hooks = [(before, None), (None, after)]
    mean = aggregator([a, b], tmp_path, interval=20, early_stop=20, warmup=20, hooks=hooks)
    assert a.vote() is None, "none of the listeners would stop"
    assert train(Listeners([a, b, mean], steps=70), Model(), 70) == 60
    assert [line["step"] for line in lines(tmp_path, "m")] == [0, 20, 40, 60]
    assert mean.state.best["RR"].step == 40, "step 0 is before the warm-up"
    values = {0: 0.625, 20: (1 / 3 + 1) / 2, 40: 1.0, 60: 0.75}
    assert calls[::2] == list(values)
    assert calls[1::2] == [(step, pytest.approx(value)) for step, value in values.items()]
    with pytest.raises(ConfigError, match=r"interval = 15: expected a multiple of .* 10"):
        aggregator([a, b], tmp_path, interval=15)
    with pytest.raises(ConfigError, match=r"early_stop = 15: expected 0 .never. or a multiple"):
        aggregator([a, b], tmp_path, early_stop=15)


def test_the_state_of_all_listeners_is_one(tmp_path):
    def both():
        a, b = (make(tmp_path, RANKS, id=id, early_stop=30) for id in "ab")
        return Listeners([aggregator([a, b], tmp_path), a, b])

    first = both()
    train(first, Model(), 45)
    second = both()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.state_dict() == first.state_dict()
    assert train(second, Model(), 100, start=46) == 70
    assert [line["step"] for line in lines(tmp_path, "m")] == list(range(0, 71, 10))


class Later:
    """An evaluation that is ready after a number of looks."""

    def __init__(self, listener_of, folder, looks):
        self.step = int((folder / "model.txt").read_text())
        self.listener_of = listener_of
        self.looks = looks

    def result(self, timeout_s):
        assert timeout_s < 600  # what other ranks wait for in the meantime gives up in the end
        self.looks -= 1
        if self.looks > 0:
            return None
        model = Model()
        model.step = self.step
        return validate(model, TASK, by_rank(RANKS), ["RR", "Success@1"])


def beside(folder, looks, **options):
    submit = lambda place, step: Later(None, place, looks)  # noqa: E731
    return make(folder, RANKS, submit=submit, **options)


def test_evaluation_beside_training_comes_to_the_same_results_later(tmp_path):
    straight = make(tmp_path / "sync", RANKS)
    train(Listeners([straight], steps=70), Model(), 70)
    model = Model()
    listener = beside(tmp_path / "async", looks=2)
    listener.after_step(0, model)
    assert listener.state.step == -1 and model.saved == [0]
    train(Listeners([listener], steps=70), model, 70, start=1)
    assert model.saved == [0, 10, 20, 30, 40, 50, 60, 70]
    for name in ("history.jsonl", "info.json", "best/RR/model.txt"):
        assert (tmp_path / "sync/dev" / name).read_bytes() == (
            tmp_path / "async/dev" / name
        ).read_bytes()
    assert not list((tmp_path / "async/dev/pending").iterdir())


def test_one_evaluation_beside_training_is_under_way_at_a_time(tmp_path):
    started, finished = [], []

    class Watched(Later):
        def result(self, timeout_s):
            result = super().result(timeout_s)
            finished.extend([self.step] if result is not None else [])
            return result

    def submit(place, step):
        assert finished == started
        started.append(step)
        return Watched(None, place, looks=5)

    train(Listeners([make(tmp_path, RANKS, submit=submit)], steps=70), Model(), 70)
    assert started == finished == [0, 10, 20, 30, 40, 50, 60, 70]


def test_the_other_ranks_are_woken_while_one_waits(tmp_path):
    messages = []

    def broadcast(value):
        messages.append(value)
        return value

    listener = beside(tmp_path, looks=5, ranks=Ranks(broadcast=broadcast))
    listener.after_step(0, Model())
    before = len(messages)
    listener.finish(Model())
    assert messages[before : before + 4] == [None] * 4 and messages[before + 4].means["RR"] == 0.625


@pytest.mark.parametrize("cut", [20, 45, 55])
def test_a_resumed_run_takes_up_evaluations_that_were_under_way(tmp_path, cut):
    train(Listeners([make(tmp_path / "sync", RANKS)], steps=70), Model(), 70)
    model = Model()
    first = beside(tmp_path / "async", looks=3)
    states = {}
    for step in range(58):
        model.step = step
        first.after_step(step, model)
        states[step] = json.loads(json.dumps(first.state_dict()))
    again = beside(tmp_path / "async", looks=1)
    again.load_state_dict(states[cut])
    train(Listeners([again], steps=70), Model(), 70, start=cut + 1)
    for name in ("info.json", "best/RR/model.txt"):
        assert (tmp_path / "sync/dev" / name).read_bytes() == (
            tmp_path / "async/dev" / name
        ).read_bytes()
    values = [
        [(line["step"], line["RR"]) for line in lines(tmp_path / p)] for p in ("sync", "async")
    ]
    assert values[0] == values[1]


def test_listeners_that_do_not_fit_together_are_not_averaged(tmp_path):
    a, b = make(tmp_path, RANKS, id="a"), make(tmp_path, RANKS, id="b", interval=5)
    with pytest.raises(ConfigError, match="a has interval 10, b has 5"):
        aggregator([a, b], tmp_path)
    c = make(tmp_path, RANKS, id="c", metrics={"AP": True})
    with pytest.raises(ConfigError, match="they must be the same"):
        aggregator([a, c], tmp_path)
    with pytest.raises(ConfigError, match="AP is not measured"):
        aggregator([a], tmp_path, metrics={"AP": True})
    with pytest.raises(ConfigError, match="async"):
        aggregator([beside(tmp_path, 1)], tmp_path)


def test_start_best_and_end_are_compared_in_the_record(tmp_path):
    record = tmp_path / "record"
    listener = make(tmp_path, RANKS, mirror=Mirror(record))
    train(Listeners([listener], steps=70), Model(), 70)
    folder = tmp_path / "dev"
    assert {p.name for p in (folder / "runs").iterdir()} >= {
        "start.parquet",
        "best.parquet",
        "end.parquet",
        "step_40.txt",
    }
    assert (folder / "figures/recall_precision.png").stat().st_size > 5000
    assert "| RR | step 40 | 1.0000" in (folder / "report.md").read_text()
    events = [record for record, _ in read_lines(record / "tracking.jsonl")]
    (table,) = [e for e in events if str(e.get("file")).endswith("per_query.json")]
    assert table["columns"]["RR - step 0"] == pytest.approx([0.75, 0, -0.05, 0, 0, 0])
    assert table["columns"]["run"] == ["step 40"] * 2 + ["step 70"] * 2 + ["step 0"] * 2
