"""The progress bar with a clock and a console of the test's own."""

import io

from rich.console import Console

from keras_vit.training.reports.progress_bar import ProgressBar, TimeLeft


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
    # 8 images in 2 seconds. An epoch takes 4 steps and a validation, 58 s; the compilation comes once.
    assert first == "epoch 1/3: loss 1.5000, 4 images/s, 1:56 left"
    assert second == "epoch 2/3: loss 1.5000, 4 images/s, 0:58 left"
    assert third == "epoch 3/3: loss 1.5000, 4 images/s"


def test_a_resumed_run_counts_its_own_epochs():
    out, clock = io.StringIO(), Clock()
    _run(ProgressBar(4, 4, 8, Console(file=out, width=200), clock), clock, 4, first=2)
    assert out.getvalue().splitlines()[0] == "epoch 3/4: loss 1.5000, 4 images/s, 0:58 left"


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
    bar.close()
    assert bar._bar is None


def test_a_terminal_keeps_a_line_of_every_epoch():
    out, clock = io.StringIO(), Clock()
    _run(ProgressBar(12, 4, 8, Console(file=out, width=160, force_terminal=True), clock), clock, 12)
    text = out.getvalue()
    assert [f"epoch {i}/12: loss 1.5000, 4 images/s" in text for i in range(1, 13)] == [True] * 12


def test_the_time_that_remains_is_not_that_of_the_compilation():
    """A first step of a minute in a run of 1,700 steps does not make it last for a day."""
    out, clock = io.StringIO(), Clock()
    bar = ProgressBar(17, 100, 8, Console(file=out, width=160, force_terminal=True), clock)
    bar.on_train_begin()
    bar.on_epoch_begin(0)
    (task,), shown = bar._bar.tasks, []
    for step, seconds in enumerate((60, 1, 1)):
        clock.after(seconds)
        bar.on_train_batch_end(step)
        shown.append(task.fields["left"])
    bar.close()
    assert shown == ["", "", "28:17 left"]
    assert task.description == "8 images/s"


def test_a_long_epoch_tells_where_it_is():
    out, clock = io.StringIO(), Clock()
    bar = ProgressBar(2, 100, 8, Console(file=out, width=200), clock)
    bar.on_train_begin()
    bar.on_epoch_begin(0)
    for step in range(100):
        clock.after(2)
        bar.on_train_batch_end(step)
    bar.on_epoch_end(0, {})
    assert out.getvalue().splitlines() == [
        "epoch 1/2, step 31/100: 4 images/s, 5:38 left",
        "epoch 1/2, step 61/100: 4 images/s, 4:38 left",
        "epoch 1/2, step 91/100: 4 images/s, 3:38 left",
        "epoch 1/2: 4 images/s, 3:20 left",
    ]


def test_a_run_of_days_tells_hours():
    out, clock = io.StringIO(), Clock()
    bar = ProgressBar(300, 5000, 8, Console(file=out, width=200), clock)
    bar.on_train_begin()
    bar.on_epoch_begin(0)
    for step in range(3):
        clock.after(30)
        bar.on_train_batch_end(step)
    assert out.getvalue() == "epoch 1/300, step 3/5000: 0.27 images/s, 12499:58:30 left\n"


def test_the_first_end_of_an_epoch_counts_until_there_is_a_second():
    """The first validation compiles too."""
    time_left = TimeLeft(4, 2)
    assert time_left.seconds(0, 1) is None
    for seconds in (1.0, 3.0):
        time_left.add_step(seconds)
    assert time_left.seconds(0, 1) == 7 * 2.0
    time_left.add_end(20.0)
    assert time_left.seconds(1, 0) == 6 * 2.0 + 3 * 20.0
    time_left.add_end(5.0)
    assert time_left.seconds(2, 1) == 3 * 2.0 + 2 * 5.0


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
