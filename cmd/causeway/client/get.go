package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

func newGet(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get TYPE [NAME]",
		Short: "List clusters, imports, routes, endpoints, proxies or problems",
		Long: `List what a clusterset consists of.

With -o json or yaml, the answer is the query API's message in the JSON of
Protocol Buffers: {"routes": [...], "revision": "42"}. Numbers of 64 bits are
strings, and fields without a value are there too. With --watch it is one event
a line.`,
		Args: func(_ *cobra.Command, args []string) error {
			var names []string
			for _, r := range resources() {
				names = append(names, r.name)
			}
			if len(args) == 0 {
				return fmt.Errorf("say what to get: %s", strings.Join(names, ", "))
			}
			return fmt.Errorf("there is no type %q: get %s", args[0], strings.Join(names, ", "))
		},
		RunE: func(*cobra.Command, []string) error { return nil }, // Args has refused
	}
	for _, r := range resources() {
		cmd.AddCommand(newGetResource(cfg, r))
	}
	return cmd
}

// getter is one run of `get TYPE`.
type getter struct {
	*resource
	cfg      Config
	query    question
	format   format
	watching bool
}

func newGetResource(cfg Config, r *resource) *cobra.Command {
	g := &getter{resource: r, cfg: cfg, query: question{filter: &causewayv1.Filter{}}}
	conn := connection{getenv: cfg.Getenv}
	var everywhere bool
	cmd := &cobra.Command{
		Use: r.name + " [NAME]", Aliases: append([]string{r.singular}, r.aliases...), Short: r.short,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if everywhere && g.query.filter.Namespace != "" {
				return errors.New("-n and -A exclude each other")
			}
			if len(args) == 1 {
				if err := g.name(args[0]); err != nil {
					return err
				}
			}
			c, end, err := conn.dial()
			if err != nil {
				return err
			}
			defer end()
			if g.watching {
				return g.watchRows(cmd.Context(), c)
			}
			return g.run(cmd.Context(), c)
		},
	}
	conn.addFlags(cmd)
	f := cmd.Flags()
	out := newChoice(&g.format, formatTable, formatWide, formatJSON, formatYAML)
	f.VarP(out, "output", "o", "how to print: "+out.usage())
	f.BoolVarP(&g.watching, "watch", "w", false, "go on, printing what changes")
	if r.name != "clusters" {
		f.StringVar(&g.query.filter.Cluster, "cluster", "", "only of this cluster")
	}
	if r.namespaced {
		f.StringVarP(&g.query.filter.Namespace, "namespace", "n", "", "only of this namespace (default: all)")
		f.BoolVarP(&everywhere, "all-namespaces", "A", false, "of all namespaces, as it is without -n")
	}
	if r.past {
		f.Int64Var(&g.query.revision, "revision", 0, "as it was at this revision of the store (default: now)")
	}
	switch r.name {
	case "endpoints":
		f.StringVar(&g.query.seenFrom, "from", "", "as seen from this cluster (default: each)")
	case "routes":
		f.BoolVar(&g.query.all, "all-judgements", false, "also show what clusters other than the home say")
	}
	return cmd
}

// name takes NAME or NAMESPACE/NAME.
func (g *getter) name(arg string) error {
	if ns, name, ok := strings.Cut(arg, "/"); ok && g.namespaced {
		if has := g.query.filter.GetNamespace(); has != "" && has != ns {
			return fmt.Errorf("%s is not in namespace %s", arg, has)
		}
		g.query.filter.Namespace, arg = ns, name
	}
	g.query.filter.Name = arg
	return nil
}

func (g *getter) run(ctx context.Context, c causewayv1.FederationClient) error {
	answer, objects, err := g.list(ctx, c, g.query)
	if err != nil {
		return err
	}
	if len(objects) == 0 {
		if err := g.nothing(ctx, c); err != nil {
			return err
		}
	}
	switch g.format {
	case formatJSON, formatYAML:
		return printMessage(g.cfg.Out, answer, g.format)
	}
	if len(objects) == 0 {
		_, err := fmt.Fprintf(g.cfg.Err, "no %s\n", g.resource.name)
		return err
	}
	rows := [][]string{g.columns(slices.Concat(g.header, g.wide))}
	for _, o := range objects {
		for _, r := range g.rows(o) {
			rows = append(rows, g.columns(r))
		}
	}
	return (&table{w: g.cfg.Out}).print(rows...)
}

// columns leaves out those of -o wide, unless they are asked for.
func (g *getter) columns(row []string) []string {
	if g.format == formatWide {
		return row
	}
	return row[:len(g.header)]
}

// nothing looks why a filter left nothing: an error if it names what doesn't
// exist, with what does.
func (g *getter) nothing(ctx context.Context, c causewayv1.FederationClient) error {
	f := g.query.filter
	if f.GetCluster() != "" {
		names, err := clusterNames(ctx, c, g.query.revision)
		if err != nil {
			return err
		}
		if !slices.Contains(names, f.GetCluster()) {
			return fmt.Errorf("no cluster %q; there are: %s", f.GetCluster(), among(names))
		}
	}
	if f.GetName() == "" && f.GetNamespace() == "" {
		return nil
	}
	wider := g.query
	wider.filter = &causewayv1.Filter{Cluster: f.GetCluster()}
	_, objects, err := g.list(ctx, c, wider)
	if err != nil {
		return err
	}
	var ids []string
	for _, o := range objects {
		ids = append(ids, g.id(o))
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	what := strings.TrimPrefix(f.GetNamespace()+"/"+f.GetName(), "/")
	switch {
	case f.GetName() == "": // an empty namespace is no mistake by itself
		if len(ids) > 0 {
			_, err = fmt.Fprintf(g.cfg.Err, "none in namespace %s; elsewhere there are: %s\n", f.GetNamespace(), among(ids))
		}
		return err
	case len(ids) == 0:
		return fmt.Errorf("no %s %q: there are no %s at all", g.singular, what, g.resource.name)
	}
	return fmt.Errorf("no %s %q; there are: %s", g.singular, what, among(ids))
}

func clusterNames(ctx context.Context, c causewayv1.FederationClient, revision int64) ([]string, error) {
	_, all, err := clusters().list(ctx, c, question{revision: revision})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, o := range all {
		out = append(out, o.(*causewayv1.Cluster).GetName())
	}
	return out, nil
}

// watchRows prints what is there, and then a row or line for each change.
func (g *getter) watchRows(ctx context.Context, c causewayv1.FederationClient) error {
	if g.format == formatYAML || g.query.revision != 0 || g.query.seenFrom != "" || g.query.all {
		return errors.New("--watch goes with -o table, wide and json, and with the filters --cluster and -n alone")
	}
	stream, err := c.Watch(ctx, &causewayv1.WatchRequest{Types: []causewayv1.WatchType{g.watch}, Filter: g.query.filter})
	if err != nil {
		return readable(err, "the server")
	}
	t := &table{w: g.cfg.Out, widths: []int{len("MODIFIED")}} // the longest event
	first := [][]string{append([]string{"EVENT"}, g.columns(slices.Concat(g.header, g.wide))...)}
	synced := false
	for {
		e, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the server ended the watch")
		case err != nil:
			err = readable(err, "the server")
			if errors.Is(err, context.Canceled) {
				return nil // Ctrl-C
			}
			return err
		}
		if g.format == formatJSON {
			data, err := marshal(e, false)
			if err != nil {
				return fmt.Errorf("print event: %w", err)
			}
			if _, err := fmt.Fprintf(g.cfg.Out, "%s\n", data); err != nil {
				return err
			}
			continue
		}
		if e.GetEvent() == causewayv1.EventType_EVENT_TYPE_SYNCED {
			synced = true
			if err := t.print(first...); err != nil {
				return err
			}
			continue
		}
		rows := g.eventRows(e)
		if !synced { // wait, so that the columns fit
			first = append(first, rows...)
			continue
		}
		if err := t.print(rows...); err != nil {
			return err
		}
	}
}

func (g *getter) eventRows(e *causewayv1.WatchResponse) [][]string {
	object := g.event(e)
	if object == nil {
		return nil
	}
	what := strings.TrimPrefix(e.GetEvent().String(), "EVENT_TYPE_")
	var out [][]string
	for _, r := range g.rows(object) {
		out = append(out, append([]string{what}, g.columns(r)...))
	}
	return out
}
