"""A real OpenAI client library talks to the router."""
import openai
import pytest

from test_routing import conversation


@pytest.fixture
def client(world):
    router = world.router(world.engines(2))
    with openai.OpenAI(base_url=router.url + "/v1", api_key="none", max_retries=0,
                       timeout=30) as client:
        yield client


def test_chat(client):
    answer = client.chat.completions.create(model="mock-model", messages=conversation(1),
                                            max_tokens=5)
    assert len(answer.choices[0].message.content) == 20
    assert answer.usage.completion_tokens == 5


def test_chat_stream(client):
    messages = conversation(2)
    cached = []
    for _ in range(3):
        text, usage = "", None
        for part in client.chat.completions.create(
                model="mock-model", messages=messages, max_tokens=7, stream=True,
                stream_options={"include_usage": True}):
            if part.choices:
                text += part.choices[0].delta.content or ""
            usage = part.usage or usage
        assert len(text) == 28
        cached.append(usage.prompt_tokens_details.cached_tokens)
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "go on"}]
    assert cached[0] == 0 and cached[1] > 500 and cached[2] >= cached[1]


def test_completions(client):
    answer = client.completions.create(model="mock-model", prompt="once upon", max_tokens=3)
    assert len(answer.choices[0].text) == 12
    parts = list(client.completions.create(model="mock-model", prompt=[1, 2, 3], max_tokens=3,
                                           stream=True))
    assert len(parts) == 3


def test_models(client):
    assert [model.id for model in client.models.list()] == ["mock-model"]


def test_errors_arrive_as_errors(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="absent", messages=conversation(3))
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="mock-model", messages=conversation(4), max_tokens=0)


def test_leaving_a_stream_early(client):
    for _ in range(3):
        stream = client.chat.completions.create(model="mock-model", messages=conversation(5),
                                                max_tokens=50, stream=True)
        next(iter(stream))
        stream.close()
    assert client.models.list()
