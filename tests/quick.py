"""Flags of XLA for programs that run for a moment: most of the suite's time would be the making of fast code."""

FLAGS = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
