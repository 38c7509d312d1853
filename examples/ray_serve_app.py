"""The server as a deployment of Ray Serve, with as many replicas as there is work for.

    pip install 'langchain-safeguard[server,ray]'
    python examples/ray_serve_app.py

Then POST to http://127.0.0.1:8000/v1/moderations as to OpenAI's endpoint. In a cluster:

    serve run examples.ray_serve_app:app

Ray starts and stops replicas, and sends each request to one that is less busy. Batching is left to
the engine inside a replica, which knows the lengths of texts. Replicas share nothing; give them a
review queue on PostgreSQL where people decide.
"""

from __future__ import annotations

import os

from fastapi import FastAPI
from ray import serve

from langchain_safeguard.server import Settings, create_app
from langchain_safeguard.server.settings import read_api_keys


def build_app() -> FastAPI:
    """Build the application inside a replica; models are loaded there and not sent around."""
    keys = read_api_keys(None, os.environ)
    return create_app(Settings(api_keys=keys, local_only=not keys))


@serve.deployment(
    ray_actor_options={"num_cpus": 1},
    max_ongoing_requests=64,
    health_check_timeout_s=60,
    autoscaling_config={
        "min_replicas": 1,
        "max_replicas": 4,
        # As many as one replica answers at once without anybody waiting for long.
        "target_ongoing_requests": 8,
    },
)
@serve.ingress(build_app)
class Moderation:
    """One replica."""


app = Moderation.bind()


def main() -> None:
    """Serve until Ctrl-C."""
    serve.run(app, blocking=True)


if __name__ == "__main__":
    main()
