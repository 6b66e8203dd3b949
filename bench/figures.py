"""What a job gives: rows of the table, each with its figures and its bar."""

import statistics

ROUNDS = 5
LOAD_SEC = 5


class Row:
    """One line of the table: the figures of one job, and the bar it is held to."""

    def __init__(self, job, values, unit, bar=None, holds=None):
        self.job, self.values, self.unit, self.bar, self.holds = job, values, unit, bar, holds

    def median(self):
        return statistics.median(self.values)

    def markdown(self):
        least, most = min(self.values), max(self.values)
        spread = f"{figure(least)} – {figure(most)}" if len(self.values) > 1 else ""
        verdict = "" if self.holds is None else ("holds" if self.holds(self.median()) else "**does not hold**")
        return f"| {self.job} | {figure(self.median())} {self.unit} | {spread} | {self.bar or ''} | {verdict} |"


def figure(value):
    """Three significant digits, and all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def p99(times):
    return sorted(times)[int(len(times) * 0.99)]
