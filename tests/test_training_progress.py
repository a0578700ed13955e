"""The progress bar with a clock and a console of the test's own."""

import io

from rich.console import Console

from keras_vit.training.progress import ProgressBar


class Clock:
    """Seconds that only the test moves."""

    now = 0.0

    def __call__(self):
        return self.now

    def after(self, seconds):
        """Moves it."""
        self.now += seconds


def _run(bar, clock, epochs, first=0):
    """Four steps an epoch: the very first compiles for 100 s, each other takes 2 s, a validation 50 s."""
    bar.on_train_begin()
    for epoch in range(first, epochs):
        bar.on_epoch_begin(epoch)
        for step in range(4):
            clock.after(100 if (epoch, step) == (first, 0) else 2)
            bar.on_train_batch_end(step)
        clock.after(50)
        bar.on_epoch_end(epoch, {"loss": 1.5})
    bar.on_train_end()


def test_lines_tell_the_rate_of_the_steps_and_the_time_that_remains():
    out, clock = io.StringIO(), Clock()
    _run(ProgressBar(3, 4, 8, Console(file=out, width=200), clock), clock, 3)
    first, second, third = out.getvalue().splitlines()
    # 8 images in 2 seconds; the first epoch took 156 s, so two more 312.
    assert first == "epoch 1/3: loss 1.5000, 4 images/s, 5:12 left"
    assert second == "epoch 2/3: loss 1.5000, 4 images/s, 1:47 left"
    assert third == "epoch 3/3: loss 1.5000, 4 images/s"


def test_a_resumed_run_counts_its_own_epochs():
    out, clock = io.StringIO(), Clock()
    _run(ProgressBar(4, 4, 8, Console(file=out, width=200), clock), clock, 4, first=2)
    assert out.getvalue().splitlines()[0] == "epoch 3/4: loss 1.5000, 4 images/s, 2:36 left"


def test_a_terminal_gets_a_bar_that_moves_within_an_epoch():
    out, clock = io.StringIO(), Clock()
    bar = ProgressBar(2, 4, 8, Console(file=out, width=160, force_terminal=True), clock)
    bar.on_train_begin()
    bar.on_epoch_begin(0)
    for step in range(2):
        clock.after(2)
        bar.on_train_batch_end(step)
    (task,) = bar._bar.tasks
    assert task.completed == 0.5
    assert task.description == "4 images/s"
    bar.on_epoch_end(0, {"loss": 0.5})
    assert task.completed == 1
    assert "loss 0.5000" in task.description
    bar.close()
    assert bar._bar is None


def test_short_epochs_do_not_fill_a_log():
    out, clock = io.StringIO(), Clock()
    bar = ProgressBar(100, 1, 8, Console(file=out, width=200), clock)
    bar.on_train_begin()
    for epoch in range(100):
        bar.on_epoch_begin(epoch)
        clock.after(1)
        bar.on_train_batch_end(0)
        bar.on_epoch_end(epoch, {})
    lines = out.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[-1].startswith("epoch 100/100")
