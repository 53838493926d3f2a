"""An OpenAI-compatible server for small Llama checkpoints on a CPU: numpy, tokenizers, safetensors.

It serves the tests, the demo and anybody without a GPU. ``server`` starts it, ``api`` speaks HTTP,
``engine`` batches, ``model`` computes, ``faults`` misbehaves on demand. Importing this package does not
import numpy, which must not happen before ``server`` has set the number of BLAS threads.
"""

from __future__ import annotations

from evalcore.serving.embedded.server import running, serve

__all__ = ["running", "serve"]
