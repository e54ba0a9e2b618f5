"""What the dashboards show (`requests`, `pipeline`, `capacity`), and how it becomes Grafana's JSON (`grafana`)."""
