"""What a herd does, shown on real servers with real text: three hospitals, three regions."""
