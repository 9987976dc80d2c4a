-- What the courier looks at each second: sessions opened, tokens revoked and commands written lately.
CREATE INDEX driver_sessions_opened_at ON driver_sessions (opened_at);
CREATE INDEX driver_tokens_revoked_at ON driver_tokens (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX driver_commands_fresh ON driver_commands (created_at) WHERE acked_at IS NULL;
