"""The hardware self-test behind `edged doctor`: what this very device can do, measured, as a report to send back."""
