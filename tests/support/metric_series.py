"""What /metrics tells, as numbers by series."""

from prometheus_client.parser import text_string_to_metric_families


def series(text):
    """Numbers by name and labels: ``{("name", ("label", "value"), ...): 1.0}``."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
