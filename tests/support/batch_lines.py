"""Lines for `qtts batch`, and the results that it wrote of them."""

import json

SETTINGS = {"checkpoint": "golden"}


def line(id_, **extra):
    return {"id": id_, "text": "Short one.", "speaker": "ryan", "max_new_tokens": 4} | extra


def results(out):
    lines = [json.loads(x) for x in (out / "results.jsonl").read_text().splitlines()]
    return {line["id"]: line for line in lines}


def write_requests(path, requests):
    path.write_text("".join(json.dumps(r) + "\n" for r in requests))
    return path
