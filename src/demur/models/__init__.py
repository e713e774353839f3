"""Models in memory: where one comes from, its chat, its generation, its anatomy and its edits."""
