"""Trackers with the signatures of the real ones: W&B 0.2x, MLflow 3, Aim 3, trackio, accelerate."""


class Tracker:
    """Keeps pairs of numbers and step."""

    def __init__(self):
        self.logged = []

    def take(self, numbers, step):
        assert all(type(value) is float for value in numbers.values())
        assert type(step) is int
        self.logged.append((numbers, step))

    @property
    def steps(self):
        return [step for _, step in self.logged]


class Wandb(Tracker):
    def log(self, data, step=None, commit=None):
        if not self.logged or step >= self.steps[-1]:  # else W&B drops the row
            self.take(data, step)


class Mlflow(Tracker):
    def log_metrics(
        self,
        metrics,
        step=None,
        synchronous=None,
        run_id=None,
        timestamp=None,
        model_id=None,
        dataset=None,
    ):
        self.take(metrics, step)


class Aim(Tracker):
    def track(self, value, name=None, step=None, epoch=None, *, context=None):
        assert name is None  # a dictionary has its own names
        self.take(value, step)


class Trackio(Tracker):
    def log(self, metrics: dict, step: int | None = None) -> None:
        self.take(metrics, step)


class Accelerator(Tracker):
    def log(self, values, step=None, log_kwargs={}):  # noqa: B006 (theirs)
        self.take(values, step)


class LightningLogger(Tracker):
    def log_metrics(self, metrics, step=None):
        self.take(metrics, step)
