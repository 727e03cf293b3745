"""Command lines: arguments in, one clear message or a result out. No logic lives here."""
