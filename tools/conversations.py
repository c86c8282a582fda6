#!/usr/bin/env python3
"""Holds streaming conversations through a router and shows where each turn went.

usage: conversations.py URL STATE [--conversations N] [--turns N]

STATE is a file: conversations in it are gone on with, and the new turns are added. Prints one line
per turn; exits 1 if a turn went to another engine than the conversation's turns before.
"""
import argparse
import concurrent.futures
import http.client
import json
import os
import sys
import urllib.parse

TOPICS = ["bread", "rivers", "clocks", "bridges", "lanterns", "maps", "violins", "glaciers"]
TIMEOUT_SECONDS = 60
BACKGROUND_SENTENCES = 80


def opening(topic):
    background = " ".join(f"Note {number} about {topic}: what has been found out so far matters."
                          for number in range(BACKGROUND_SENTENCES))
    return [{"role": "system", "content": f"You know all about {topic}. {background}"}]


def stream_turn(url, messages):
    """(engine, text, prompt tokens, cached tokens) of one streamed answer."""
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=TIMEOUT_SECONDS)
    try:
        body = {"model": "mock-model", "messages": messages, "max_tokens": 24, "stream": True,
                "stream_options": {"include_usage": True}}
        connection.request("POST", "/v1/chat/completions", json.dumps(body),
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"the router answered {answer.status}: {answer.read(300)!r}")
        engine = answer.getheader("x-engine-id", "?")
        text, usage = "", {}
        for line in answer:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            event = json.loads(line[len(b"data: "):])
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
            usage = event.get("usage") or usage
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return engine, text, usage["prompt_tokens"], cached
    finally:
        connection.close()


def load(path):
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def save(path, talks):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(talks, file)


def take_turn(url, topic, talk):
    """One turn of one conversation: the line to print, and whether it stayed at its engine."""
    talk["turn"] += 1
    talk["messages"].append({"role": "user",
                             "content": f"Question {talk['turn']}: tell me more about {topic}."})
    engine, text, prompt_tokens, cached_tokens = stream_turn(url, talk["messages"])
    talk["messages"].append({"role": "assistant", "content": text})
    stayed = talk["engine"] in (None, engine)
    share = 100 * cached_tokens // prompt_tokens
    remark = "" if talk["engine"] is None else "  same engine" if stayed else "  MOVED"
    talk["engine"] = engine
    return (f"   {topic:<10} turn {talk['turn']:>2}  ->  {engine:<9} "
            f"{cached_tokens:>5} of {prompt_tokens:>5} prompt tokens cached ({share:>2} %){remark}",
            stayed)


def hold_round(url, talks):
    """The next turn of each; how many moved. Openings come all at once, so that load spreads them;
    later turns one by one, as people type."""
    opening_round = all(talk["turn"] == 0 for talk in talks.values())
    moved = 0
    with concurrent.futures.ThreadPoolExecutor(len(talks) if opening_round else 1) as pool:
        turns = [pool.submit(take_turn, url, topic, talk) for topic, talk in talks.items()]
        for turn in turns:
            line, stayed = turn.result()
            print(line, flush=True)
            moved += not stayed
    return moved


def main():
    parser = argparse.ArgumentParser(description="Holds streaming conversations.")
    parser.add_argument("url")
    parser.add_argument("state")
    parser.add_argument("--conversations", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    url = urllib.parse.urlsplit(options.url)
    talks = load(options.state)
    for topic in TOPICS[:options.conversations]:
        talks.setdefault(topic, {"messages": opening(topic), "turn": 0, "engine": None})
    moved = 0
    for _ in range(options.turns):
        moved += hold_round(url, talks)
    save(options.state, talks)
    if moved:
        print(f"   {moved} turns went to another engine than the turn before")
    return 1 if moved else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, http.client.HTTPException) as problem:
        print(f"conversations.py: {problem}", file=sys.stderr)
        sys.exit(2)
