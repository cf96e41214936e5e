"""Fast paths on the CPU: kernels with gradients of their own, each equal to a plain path by test.

The kernels are Numba's, over arrays; the functions around them take and give tensors and fall back to torch's own
where the kernels do not apply. Imports torch, Numba and the masking layer, and nothing else of ours.
"""
