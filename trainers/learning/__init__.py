"""How adapters and critic learn from what agents lived through."""
