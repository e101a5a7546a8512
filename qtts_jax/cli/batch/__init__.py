"""`qtts batch`: speak every request of a JSONL file."""
