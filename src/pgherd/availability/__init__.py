"""What keeps groups available, and what proves it: watchers; drills, their history and its checker."""
