package embedded

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZap returns a logger for etcd that hands warnings and errors to lg. What etcd
// calls fatal ends the goroutine that met it, not this process: losing the
// store must not stop the data planes that this process serves.
func newZap(lg *slog.Logger) *zap.Logger {
	return zap.New(&slogCore{lg: lg.With("component", "etcd")}, zap.WithFatalHook(zapcore.WriteThenGoexit))
}

// harmless are messages above info that each undisturbed start or stop brings.
var harmless = map[string]bool{
	"simple token is not cryptographically signed": true, // tokens are for passwords, which nobody has
	"Failed to detect schema version":              true, // of a database that is just being made
	"failed to update storage version":             true, // the same; etcd tries again
	// At each stop; a failure comes through Etcd.Err, too.
	"setting up serving from embedded etcd failed.": true,
}

// slogCore is a zapcore.Core that writes to a slog.Logger.
type slogCore struct{ lg *slog.Logger }

func (c *slogCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{lg: c.lg.With(attrs(fields)...)}
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !harmless[e.Message] {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelError
	if e.Level == zapcore.WarnLevel {
		level = slog.LevelWarn
	}
	c.lg.Log(context.Background(), level, e.Message, attrs(fields)...)
	return nil
}

func (c *slogCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []any {
	out := make([]any, 0, len(fields))
	for _, f := range fields {
		// Each by itself: in one map, fields of equal name would be lost.
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		for k, v := range enc.Fields {
			out = append(out, slog.Any(k, v))
		}
	}
	return out
}
