"""The tables."""

from machine import ROOT, Failed


def markdown(figures):
    """All figures as Markdown."""
    lines = [f"{figures['date']}, {figures['machine']}. Processor time of the server per request, medians of "
             f"{figures['rounds']} interleaved rounds of {figures['seconds']} s.", ""]
    lines += ["| Work | flagside | against | ratio | must | aim | |", "|---|---|---|---|---|---|---|"]
    for work in figures["work"].values():
        lines += _work(work)
    for row in figures.get("single", []):
        lines.append(_single(row))
    lines += ["", "| Work | server | CPU µs/request | least to most | requests/s | bytes | asked upstream |",
              "|---|---|---|---|---|---|---|"]
    for name, work in figures["work"].items():
        for peer, found in work["servers"].items():
            rounds = found["cpu_us_rounds"]
            lines.append(f"| {name} | {peer} | {found['cpu_us']:.2f} | {min(rounds):.2f} to {max(rounds):.2f} | "
                         f"{found['requests_per_second']:,.0f} | {found['answer_bytes']:,} | {_upstream(peer, found)} |")
    if latency := figures.get("latency"):
        lines += ["", "| 2,000 requests/s, 16 connections | p50 µs | p99 µs |", "|---|---|---|"]
        lines += [f"| {name} | {found['p50_us']:.0f} | {found['p99_us']:.0f} |" for name, found in latency.items()]
    lines += ["", "Versions: " + "; ".join(figures["versions"].values()) + "."]
    return "\n".join(lines)


def _work(work):
    ours = work["servers"][work["ours"]]["cpu_us"]
    lines, title = [], work["title"]
    for peer, (must, aim) in work["bars"].items():
        if peer not in work["servers"]:
            continue
        theirs = work["servers"][peer]["cpu_us"]
        ratio = ours / theirs
        lines.append(f"| {title} | {ours:.2f} µs | {peer} {theirs:.2f} µs | {ratio:.2f} | {_bar(must, '≤ {:.2f}')} | "
                     f"{_bar(aim, '{:.2f}')} | {_verdict(ratio, must, aim)} |")
        title = ""
    return lines


def _single(row):
    value, must, aim = row["value"], row.get("must"), row.get("aim")
    unit = row["unit"]
    return (f"| {row['title']} | {value:.{row.get('digits', 1)}f} {unit} | {row.get('against', '')} | | "
            f"{_bar(must, '≤ {:g} ' + unit)} | {_bar(aim, '{:g}')} | {_verdict(value, must, aim)} |")


def _bar(bar, form):
    return "" if bar is None else form.format(bar)


def _verdict(value, must, aim):
    if must is None:
        return ""
    if value > must:
        return "**missed**"
    return "aim" if aim is not None and value <= aim else "met"


def _upstream(peer, found):
    if peer.startswith("bare"):
        return "-"
    asked, requests = found["asked_upstream"], found["requests"]
    return "none" if asked == 0 else "all" if asked == requests else f"{asked:,} of {requests:,}"


def into_document(name, text):
    """Puts a table between its marks in docs/performance.md."""
    document = ROOT / "docs" / "performance.md"
    begin, end = f"<!-- {name} begins -->\n", f"<!-- {name} ends -->\n"
    before, _, rest = document.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise Failed(f"{document} has no place for {name}")
    document.write_text(f"{before}{begin}\n{text}\n\n{end}{after}")
