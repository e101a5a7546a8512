"""Pallas (Triton) kernels for NVIDIA GPUs: decoding steps, and training attention over frames.

A decoding step reads every weight once and computes next to nothing, so its speed is bound by the
number of kernels and by how well each streams its weights. At batch 1 a layer is five kernels here
(six over a long cache) instead of the dozen or more that XLA makes of the plain modules; in a batch
the products are left to XLA and attention and sampling are one kernel each. On Hopper GPUs a row of
a released model takes the persistent kernels of `layers/cuda` instead.

Beside every kernel stands the plain function `plain_*` that defines it; the two differ in the
order of float32 sums, and attention weights stay float32 in the kernel. Activations are bfloat16
or float32, sums are always float32, and results are rounded where the plain modules round them.
Which of the two runs is an argument that `qtts_jax.layers.dispatch` decides. Block sizes are module
constants, read while tracing. Every entry of the decoding kernels is a `jax.jit` of its own inside
the program that calls it, so that a kernel is traced and lowered once for all layers of a shape and
not 540 times for a frame of the released models. XLA inlines the calls.
"""
