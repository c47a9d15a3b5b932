"""What is measured more than once in a report becomes one row, or is left out by name."""

from collections.abc import Iterable, Iterator

from mlops_db.adapters.evidently.measured import LeftOut, Measured


def each_once(found: Iterable[Measured | LeftOut]) -> Iterator[Measured | LeftOut]:
    """Each series once: a preset and a metric beside it measure the same, and say so in full together."""
    measured: dict[tuple[str, str], list[Measured]] = {}
    left_out: list[LeftOut] = []
    for each in found:
        if isinstance(each, Measured):
            measured.setdefault((each.metric_type, each.metric_name), []).append(each)
        else:
            left_out.append(each)
    for (metric_type, name), rows in measured.items():
        conditions = [row.metadata.get("condition") for row in rows]
        if len({row.value for row in rows}) > 1 or any(each != conditions[0] for each in conditions):
            left_out.append(LeftOut(name, "measured more than once, with parameters that the file does not tell"))
            continue
        told = {key: [row.metadata[key] for row in rows if key in row.metadata] for row in rows for key in row.metadata}
        metadata = {key: values[0] for key, values in told.items() if all(each == values[0] for each in values)}
        if "error" in told:
            metadata["error"] = "; ".join(sorted(set(told["error"])))
        left_out += [
            LeftOut(f"{name}: {key}", "measured more than once, and they differ in it")
            for key in sorted(told.keys() - metadata.keys())
        ]
        bounds = {(row.lower, row.upper) for row in rows} - {(None, None)}
        lower, upper = bounds.pop() if len(bounds) == 1 else (None, None)
        yield Measured(metric_type, name, rows[0].value, metadata, lower, upper)
    yield from dict.fromkeys(left_out)
