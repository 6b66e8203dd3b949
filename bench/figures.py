"""What a job gives: rows of the table, each with its figures and its bar."""

import statistics

ROUNDS = 5
LOAD_SEC = 5


class Row:
    """One line of the table: the figures of one job, and the bar they are held to, the least or the most it may be.

    Where a server did the job, `cpu_sec` is what each round took of it, and `memory_mb` the most memory it had so far.
    """

    def __init__(self, job, values, unit, *, least=None, most=None, rounds=None, cpu_sec=None, memory_mb=None):
        self.job, self.values, self.unit, self.least, self.most = job, values, unit, least, most
        self.rounds, self.cpu_sec, self.memory_mb = rounds or len(values), cpu_sec, memory_mb

    def median(self):
        return statistics.median(self.values)

    def holds(self):
        """Whether the bar holds; `None` where there is none."""
        if self.least is None and self.most is None:
            return None
        return self.median() >= self.least if self.most is None else self.median() <= self.most

    def markdown(self):
        least, most = min(self.values), max(self.values)
        bar = "" if self.holds() is None else f"≤ {self.most:,}" if self.least is None else f"≥ {self.least:,}"
        cells = [
            self.job,
            f"{figure(self.median())} {self.unit}",
            f"{figure(least)} – {figure(most)}" if len(self.values) > 1 else "",
            self.rounds,
            f"{figure(statistics.median(self.cpu_sec))} s" if self.cpu_sec else "",
            f"{figure(self.memory_mb)} MB" if self.memory_mb else "",
            bar and f"{bar} {self.unit}",
            {None: "", True: "holds", False: "**does not hold**"}[self.holds()],
        ]
        return "".join(f"| {cell} " for cell in cells) + "|"


HEAD = "| job | median | spread | rounds | CPU of a round | memory | bar | |\n|---|---|---|---|---|---|---|---|"


def figure(value):
    """Three significant digits, and all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def p99(times):
    return sorted(times)[int(len(times) * 0.99)]


def in_turns(*jobs):
    """Does each job in its turn, A B A B, and gives the figures of the rounds of each."""
    return list(zip(*([job() for job in jobs] for _ in range(ROUNDS))))


def ratios(figures, others):
    """Of each round of one job to the round of another that was beside it."""
    return [figure / other for figure, other in zip(figures, others)]
