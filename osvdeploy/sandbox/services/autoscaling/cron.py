"""When a scheduled action recurs: Unix cron's five fields.

Source: "Scheduled scaling for Amazon EC2 Auto Scaling", and crontab(5), which it names.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

_MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}
_PART = re.compile(r"(?:\*|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>[1-9][0-9]?))?")

YEARS = 5
"""How far ahead is looked: the 29th of February comes within."""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Minutes, hours, days of the month, months, days of the week (0 is Sunday). ``any_day``, ``any_weekday``: that
    field is ``*``; where neither is, either one will do, as cron has it."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    @classmethod
    def parse(cls, text: str) -> Recurrence:
        """Raises ValueError for what is no recurrence."""
        fields = text.upper().split()
        if len(fields) != 5:
            raise ValueError(f"{text!r} has not five fields")
        weekdays = frozenset(day % 7 for day in _field(fields[4], 0, 7, _DAYS))
        return cls(
            _field(fields[0], 0, 59),
            _field(fields[1], 0, 23),
            _field(fields[2], 1, 31),
            _field(fields[3], 1, 12, _MONTHS),
            weekdays,
            fields[2].startswith("*"),
            fields[4].startswith("*"),
        )

    def after(self, moment: datetime, zone: str = "UTC") -> datetime | None:
        """The next time behind ``moment``, None where there is none within :data:`YEARS`."""
        there = moment.astimezone(ZoneInfo(zone))
        for number in range(366 * YEARS):
            day = there.date() + timedelta(days=number)
            if not self._on(day):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    due = datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(zone)).astimezone(UTC)
                    if due > moment:
                        return due
        return None

    def _on(self, day: date) -> bool:
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        fits = by_day and by_weekday if self.any_day or self.any_weekday else by_day or by_weekday
        return day.month in self.months and fits


def _field(text: str, low: int, high: int, names: dict[str, int] | None = None) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is no part of a cron expression")
        first = _number(match["low"], names) if match["low"] else low
        last = _number(match["high"], names) if match["high"] else high if match["step"] or not match["low"] else first
        if not low <= first <= last <= high:
            raise ValueError(f"{part!r} is not between {low} and {high}")
        found.update(range(first, last + 1, int(match["step"] or 1)))
    return frozenset(found)


def _number(text: str, names: dict[str, int] | None) -> int:
    return names[text] if names and text in names else int(text)
