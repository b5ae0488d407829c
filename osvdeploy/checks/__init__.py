"""What can be known of an image before it is made: rules over facts, each answer a finding. Nothing is read here."""

from osvdeploy.checks.finding import Finding, Judged, Severity, judge

__all__ = ["Finding", "Judged", "Severity", "judge"]
