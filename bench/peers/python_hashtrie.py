"""The Python HashTrie's rule, written anew from its description: plain Python, no bound, no eviction.

A prompt is cut into chunks of 128 characters; each is hashed alone, with xxh64 over its UTF-8. A node
per chunk holds the set of endpoints that were sent a prompt through it, and an asyncio.Lock. Whoever
is sent a prompt is put into every node of its path. A match walks down as long as the next chunk's
node exists and shares an endpoint with those left.
"""
import asyncio

import xxhash

CHUNK_SIZE = 128


class TrieNode:
    def __init__(self):
        self.children = {}
        self.endpoints = set()
        self.lock = asyncio.Lock()


class HashTrie:
    def __init__(self):
        self.root = TrieNode()

    def chunk_hashes(self, prompt):
        for start in range(0, len(prompt), CHUNK_SIZE):
            yield xxhash.xxh64(prompt[start:start + CHUNK_SIZE]).intdigest()

    async def insert(self, prompt, endpoint):
        node = self.root
        async with node.lock:
            node.endpoints.add(endpoint)
        for chunk_hash in self.chunk_hashes(prompt):
            async with node.lock:
                child = node.children.get(chunk_hash)
                if child is None:
                    child = node.children[chunk_hash] = TrieNode()
            node = child
            async with node.lock:
                node.endpoints.add(endpoint)

    async def longest_prefix_match(self, prompt, available):
        """(characters matched, endpoints that hold them); nothing matched: (0, all available)."""
        node = self.root
        match_length = 0
        selected = available
        for chunk_hash in self.chunk_hashes(prompt):
            async with node.lock:
                node = node.children.get(chunk_hash)
            if node is None:
                break
            async with node.lock:
                left = node.endpoints & selected
            if not left:
                break
            match_length += CHUNK_SIZE
            selected = left
        return match_length, selected


class HashTrieOfHashes(HashTrie):
    """Prompts are lists of chunk hashes already."""

    def chunk_hashes(self, prompt):
        return iter(prompt)
