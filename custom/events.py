# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The events of progress.jsonl: the schema of each, and the one parser of its lines.

A reader gets typed events and needs no check of its own. A line that is not one becomes `NotUnderstood`, in its place,
so that it is counted by whoever reads on. Fields that a later version adds are left out, and so is nothing else: an
event of an unknown name is an `Event`. What the writers can write must be understood here, whatever a site sent.

A new event is a class here and a line in KINDS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json

from custom.metric_ranges import LARGEST
from custom.printable import printable, printable_all

LONGEST_LINE = 64_000_000  # bytes; the scores of 100,000 held-out writers have a quarter of that
MOST_NAMED, MOST_LETTERS = 5, 120
LONGEST_TEXT = 4000  # characters
BOM = b"\xef\xbb\xbf"

Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
Finite = float  # see `allow_inf_nan` below; in JSON also an integer
Number = Annotated[int, Field(ge=-(2**64), le=2**64)] | float
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0, le=2**64)]
RoundNumber = Annotated[int, Field(ge=0, le=10**9)]  # counted from 1; 0 is the initial model
Seconds = Annotated[float, Field(ge=0, le=1e10)]
Share = Annotated[float, Field(ge=0, le=1)]


def shown_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Without numbers that no metric has and a site may send: sums over them are infinite, and no axis holds them."""
    return {name: value for name, value in metrics.items() if abs(value) <= LARGEST}


Metrics = Annotated[dict[str, float], AfterValidator(shown_metrics)]
BYTES = ("upload_bytes", "download_bytes", "dense_upload_bytes", "dense_download_bytes")


class Part(BaseModel):
    """An object in an event; what is not in the schema is left out."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True, populate_by_name=True)


class Event(Part):
    """What all events have.

    Attributes:
        event: its name, a key of KINDS, or one of a later version.
        time: Unix seconds.
    """

    event: str
    time: Seconds = 0.0

    def given(self) -> dict[str, Any]:
        """Its own fields as JSON, those that were there."""
        return self.model_dump(by_alias=True, exclude_unset=True, exclude={"event", "time"})


E = TypeVar("E", bound=Event)


class NotUnderstood(Event):
    """A line that is not an event, or one with a value of another type.

    Attributes:
        line: counted from 1.
        reason: printable, without the value.
    """

    line: int
    reason: str


class JobStarted(Event):
    """FLARE has started the job at the server; `workflows` are the ids of those planned."""

    job: Text = ""
    job_id: Text = ""
    sites: list[str] = []
    workflows: list[str] = []


class Workflow(Event):
    """A workflow has started, or has finished."""

    workflow: Text = ""


class JobEnded(Event):
    """FLARE has ended the job, `aborted` before all workflows were done."""

    aborted: bool = False


class Initialized(Event):
    """The sites agree on model and data.

    Attributes:
        dataset: what `SiteData.describe` says.
        samples: number by site and split.
        left_out: number of items by site and reason.
        data_notes: sentences by site.
    """

    method: Text = ""
    source: Text = ""
    dataset: dict[str, JsonValue] | None = None
    samples: dict[str, dict[str, Count]] = {}
    left_out: dict[str, dict[str, Count]] = {}
    data_notes: dict[str, list[str]] = {}


class Continued(Event):
    """The job goes on from another one; `rounds` are those that are over, by workflow."""

    job_id: Text = ""
    workflow: Text = ""
    round: RoundNumber
    rounds: dict[str, RoundNumber] = {}


class Traffic(Part):
    """Bytes of one site in a round; `dense` ones are what dense exchange would have cost."""

    upload_bytes: Count | None = None
    download_bytes: Count | None = None
    dense_upload_bytes: Count | None = None
    dense_download_bytes: Count | None = None

    def counts(self) -> dict[str, int]:
        """All of BYTES; empty if one is not known."""
        found = {name: getattr(self, name) for name in BYTES}
        return {} if None in found.values() else found


class SiteRound(Traffic):
    """One site's part in a round.

    Attributes:
        samples: that it weighs.
        received: metrics of the model that it received.
        train: metrics of its training.
        evaluated: of the received model on held-out writers; empty if there are none.
        update: how its update stands among the others', see `custom.checks.round.Standing`.
    """

    samples: Weight = 0.0
    received: Metrics = {}
    train: Metrics = {}
    evaluated: Metrics = {}
    update: dict[str, Finite] = {}


class RoundEnded(Event):
    """One round of a task; `failed` has reasons, `uncounted` the bytes of sites whose update was not accepted."""

    round: Annotated[RoundNumber, Field(ge=1)]
    num_rounds: RoundNumber = 0
    task: Annotated[str, BeforeValidator(lambda value: value or "train")] = "train"
    seconds: Seconds = 0.0
    upload_bytes: Count = 0
    download_bytes: Count = 0
    dense_upload_bytes: Count | None = None
    dense_download_bytes: Count | None = None
    sites: dict[str, SiteRound] = {}
    failed: dict[str, str] = {}
    uncounted: dict[str, Traffic] = {}

    def samples(self) -> dict[str, float]:
        """By site."""
        return {site: facts.samples for site, facts in self.sites.items()}


class Validated(Event):
    """The sites have scored the model after `round`."""

    round: RoundNumber
    sites: dict[str, Metrics] = {}
    samples: dict[str, Weight] = {}


class Best(Event):
    """The model after `round` is the best so far."""

    round: RoundNumber
    metric: str
    value: Finite
    rule: Text = ""


class TunedSite(Part):
    """Test and validation metrics of each kind of model at a site; those that were measured."""

    local_only: Metrics = {}
    global_: Metrics = Field(default={}, alias="global")
    personal: Metrics = {}
    best_epoch: Number = 0
    epochs: Number = 0
    samples: Number = 0
    test_samples: Number = 0


class OverSites(Part):
    """Test accuracy of one kind of model over the sites."""

    mean: Finite
    std: Finite
    worst: Finite
    worst_site: str


class Nothing(Part):
    """An empty object: a summary of no sites, or no writers."""

    model_config = ConfigDict(extra="forbid")


class TunedSummary(Part):
    """As `controllers.fine_tune.summarise` gives it."""

    local_only: OverSites | None = None
    global_: OverSites = Field(alias="global")
    personal: OverSites
    harmed_on_test: Finite = 0.0
    harmed_on_validation: Finite = 0.0


class FineTuned(Event):
    """What fine-tuning came to, as in fine_tune.json."""

    start_from: Text = ""
    rounds: RoundNumber | None = None
    sites: dict[str, TunedSite] = {}
    failed: dict[str, str] = {}
    summary: TunedSummary | Nothing = Nothing()


class WriterRows(Part):
    """As `custom.learning.personalize.Personalized`: a list a field, an entry a writer."""

    support: list[Count] = []
    query: list[Count] = []
    unseen: list[Count] = []
    initial_accuracy: list[Share] = []
    initial_loss: list[Finite] = []
    personalized_accuracy: list[Share] = []
    personalized_loss: list[Finite] = []
    dropped: Count = 0


class Spread(Part):
    """Over writers."""

    mean: Finite
    std: Finite
    p10: Finite
    p90: Finite


class Gain(Spread):
    """Of accuracy, paired by writer."""

    standard_error: Finite


class AccuracyAndLoss(Part):
    """Of one model."""

    accuracy: Spread
    loss: Spread


class WritersSummary(Part):
    """As `controllers.personalize.summarise` gives it."""

    writers: Count
    dropped: Count = 0
    initial: AccuracyAndLoss
    personalized: AccuracyAndLoss
    gain: Gain
    harmed: Finite
    query_samples: Count = 0
    unseen_query_samples: Count = 0
    unseen_query_share: Finite = 0.0


class Personalized(Event):
    """What personalising came to for held-out writers, as in personalize.json."""

    rounds: dict[str, RoundNumber] = {}
    target_accuracy: Finite | None = None
    sites: dict[str, WriterRows] = {}
    failed: dict[str, str] = {}
    summary: WritersSummary | Nothing = Nothing()


class SiteError(Event):
    """A site failed at a task."""

    site: Text = ""
    task: Text = ""
    reason: Text = ""


class Remark(Event):
    """What ended the job, or what a reader should know all the same."""

    reason: Text = ""


KINDS: dict[str, type[Event]] = {
    "job_started": JobStarted,
    "workflow_started": Workflow,
    "workflow_finished": Workflow,
    "job_ended": JobEnded,
    "initialized": Initialized,
    "continued": Continued,
    "round": RoundEnded,
    "validation": Validated,
    "best": Best,
    "fine_tuned": FineTuned,
    "personalized": Personalized,
    "site_error": SiteError,
    "fatal": Remark,
    "warning": Remark,
}


def parse(line: bytes, number: int = 1) -> Event:
    """The event of one line, whose `number` counts from 1."""
    if len(line) > LONGEST_LINE:
        return not_understood(number, f"it has more than {LONGEST_LINE / 1e6:.0f} MB")
    if number == 1:
        line = line.removeprefix(BOM)
    name = ""
    try:
        value = printable_all(from_json(line), LONGEST_TEXT)
        name = Event.model_validate(value).event
        return KINDS.get(name, Event).model_validate(value)
    except ValidationError as error:
        return not_understood(number, _reason(name, error))
    except (ValueError, RecursionError) as error:
        return not_understood(number, printable(error, MOST_LETTERS))


def not_understood(number: int, reason: str) -> NotUnderstood:
    """In the place of the event of line `number`."""
    return NotUnderstood(event="not_understood", line=number, reason=reason)


def _reason(name: str, error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, (name, *first["loc"]) if name else first["loc"]))[:MOST_LETTERS]
    return printable(f"{where}: {first['msg']}" if where else first["msg"])


def parse_lines(lines: bytes, first: int = 1) -> list[Event]:
    """The events of whole lines; `first` is the number of the first. Empty ones are none."""
    return [parse(line, number) for number, line in enumerate(lines.split(b"\n"), first) if line.strip()]


def of_kind(events: Sequence[Event], kind: type[E]) -> list[E]:
    """Those of one class, in their order."""
    return [event for event in events if isinstance(event, kind)]


def unread(events: Sequence[Event], file: str) -> str:
    """`2 lines of FILE were not understood: ...`; empty if all were."""
    found = of_kind(events, NotUnderstood)
    if not found:
        return ""
    named = [f"line {event.line} ({event.reason})" for event in found[:MOST_NAMED]]
    more = [f"and {len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else []
    lines = "1 line" if len(found) == 1 else f"{len(found)} lines"
    return f"{lines} of {file} {'was' if len(found) == 1 else 'were'} not understood: {', '.join(named + more)}"
