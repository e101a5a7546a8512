"""A CUDA kernel as an operation of a jitted program.

jaxlib launches kernels that Triton's bindings hand over as PTX (the FFI target of `jax_triton`).
The PTX here comes from NVRTC, so neither a compiler nor a library of our own is needed at run time.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib

from qtts_jax.layers.cuda import nvrtc

TARGET = "triton_kernel_call_ffi"
NO_BINDINGS = "this jaxlib cannot launch kernels in PTX"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel and how it is launched.

    Attributes:
        source: file in this folder; its kernel has the same name without the suffix. Parameters are
            pointers to the arguments, to the words, then to the results.
        blocks, threads: all blocks must fit on the GPU at once, because they wait for each other.
        shared_bytes: dynamic shared memory of a block, the macro SHARED_BYTES.
        words: 8-byte words for exchanges between blocks, zeros before each launch, the macro WORDS.
        defines: further macros.
    """

    source: str
    blocks: int
    threads: int
    shared_bytes: int
    words: int
    defines: tuple[tuple[str, str], ...] = ()

    def ptx(self) -> str:
        """The compiled kernel."""
        sizes = (("SHARED_BYTES", str(self.shared_bytes)), ("WORDS", str(self.words)))
        return nvrtc.to_ptx(self.source, (*self.defines, *sizes))

    def __call__(
        self,
        arguments: Sequence[jax.Array],
        results: Sequence[jax.ShapeDtypeStruct],
        shared: Mapping[int, int] | None = None,
    ) -> list[jax.Array]:
        """Launch the kernel on arrays of one CUDA device, in a traced function.

        Args:
            shared: number of an argument -> number of the result that takes its memory.
        """
        from jax._src.lib import gpu_triton  # private, but what jax_triton stands on

        name = self.source.partition(".")[0]
        kernel = gpu_triton.TritonKernel(
            name, self.threads // 32, 1, self.shared_bytes, self.ptx(), "", 90
        )
        scratch = jax.ShapeDtypeStruct((2 * self.words,), jnp.uint32)
        plain, cleared = (
            gpu_triton.create_array_parameter(zeros, 16) for zeros in (0, 8 * self.words)
        )
        parameters = [plain] * len(arguments) + [cleared] + [plain] * len(results)
        call = gpu_triton.TritonKernelCall(kernel, self.blocks, 1, 1, parameters)
        opaque: Any = zlib.compress(call.to_proto(name, b""))
        aliases = {argument: result + 1 for argument, result in (shared or {}).items()}
        run = jax.ffi.ffi_call(TARGET, [scratch, *results], input_output_aliases=aliases)
        made = run(*arguments, opaque=opaque)
        return list(made[1:])


def available() -> str | None:
    """Why no kernel of this folder can be launched; None where they can be."""
    if jaxlib.version.__version_info__ < (0, 11):
        return "jaxlib is older than 0.11"
    try:
        from jax._src.lib import gpu_triton
    except ImportError:
        return NO_BINDINGS
    if not hasattr(gpu_triton, "TritonKernel"):
        return NO_BINDINGS
    if nvrtc.shared_library() is None:
        return "NVRTC is missing (the package nvidia-cuda-nvrtc, which jax[cuda13] installs)"
    return None
