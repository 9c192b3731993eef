package client

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/federation/policy"
)

// maxPolicyBytes bounds one file of manifests.
const maxPolicyBytes = 4 << 20

func newPolicy(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Say which namespaces clusters may export and route, and how much: apply, get, delete",
		Long: `Say what the clusters of the clusterset may: which namespaces they may export, from
which namespaces their routes may govern requests in other clusters, and how much they
may put into the store. Every agent and hub obeys it; what it keeps from other clusters
is reported where it was written. Without any policy everything is allowed.

Only administrators may do that: the certificate that "causeway up" or "clusterset init"
wrote is one's.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return errors.New("say what to do: apply, get or delete") },
	}
	cmd.AddCommand(newPolicyApply(cfg), newPolicyGet(cfg), newPolicyDelete(cfg))
	return cmd
}

func newPolicyApply(cfg Config) *cobra.Command {
	conn := connection{getenv: cfg.Getenv}
	var files []string
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Make policies, or replace those of their names: all or none",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &causewayv1.ApplyPoliciesRequest{}
			if len(files) == 0 {
				return errors.New("give a file of policies with -f; - is standard input")
			}
			for _, name := range files {
				policies, err := readPolicies(cmd.InOrStdin(), name)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				for i := range policies {
					req.Policies = append(req.Policies, policies[i].Message())
				}
			}
			cc, end, err := conn.connect()
			if err != nil {
				return err
			}
			defer end()
			answer, err := causewayv1.NewAdministrationClient(cc).ApplyPolicies(cmd.Context(), req)
			if err != nil {
				return err
			}
			for i, o := range answer.GetOutcomes() {
				if i < len(req.Policies) {
					if _, err := fmt.Fprintf(cfg.Out, "policy %s %s\n", req.Policies[i].GetName(), strings.ToLower(strings.TrimPrefix(o.String(), "POLICY_OUTCOME_"))); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	conn.addFlags(cmd)
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file of ClusterPolicies, YAML; - is standard input; may be repeated")
	return cmd
}

func readPolicies(stdin io.Reader, name string) ([]policy.Policy, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPolicyBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxPolicyBytes {
		return nil, fmt.Errorf("has more than %d bytes", maxPolicyBytes)
	}
	policies, err := policy.Parse(data)
	if err == nil && len(policies) == 0 {
		err = errors.New("has no policy")
	}
	return policies, err
}

func newPolicyGet(cfg Config) *cobra.Command {
	conn := connection{getenv: cfg.Getenv}
	var f format
	cmd := &cobra.Command{
		Use: "get [NAME]", Short: "Show policies",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cc, end, err := conn.connect()
			if err != nil {
				return err
			}
			defer end()
			answer, err := causewayv1.NewAdministrationClient(cc).ListPolicies(cmd.Context(), &causewayv1.ListPoliciesRequest{})
			if err != nil {
				return err
			}
			var list []policy.Policy
			for _, m := range answer.GetPolicies() {
				p, err := policy.FromMessage(m)
				if err != nil {
					return err
				}
				if len(args) == 0 || p.Name == args[0] {
					list = append(list, p)
				}
			}
			if len(args) > 0 && len(list) == 0 {
				return fmt.Errorf("there is no policy %q", args[0])
			}
			switch f {
			case formatJSON:
				answer.Policies = nil
				for i := range list {
					answer.Policies = append(answer.Policies, list[i].Message())
				}
				return printMessage(cfg.Out, answer, f)
			case formatYAML:
				return printManifests(cfg.Out, list)
			}
			return printPolicies(cfg.Out, list)
		},
	}
	conn.addFlags(cmd)
	out := newChoice(&f, formatTable, formatYAML, formatJSON)
	cmd.Flags().VarP(out, "output", "o", "how to print: "+out.usage()+"; yaml is what apply takes")
	return cmd
}

func printManifests(w io.Writer, list []policy.Policy) error {
	for i := range list {
		doc, err := list[i].Manifest()
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "---\n%s", doc); err != nil {
			return err
		}
	}
	return nil
}

func printPolicies(w io.Writer, list []policy.Policy) error {
	rows := [][]string{{"NAME", "CLUSTERS", "EXPORT", "ROUTE", "QUOTA"}}
	for _, p := range list {
		clusters, quota := "all", "-"
		if c := p.Clusters; c != nil {
			clusters = strings.Join(c.Names, ",")
			if c.Selector != "" {
				clusters = strings.TrimPrefix(clusters+" with "+c.Selector, " ")
			}
		}
		if q := p.Quota; q != nil {
			var parts []string
			if q.Objects != nil {
				parts = append(parts, fmt.Sprintf("%d objects", *q.Objects))
			}
			if q.Bytes != nil {
				parts = append(parts, fmt.Sprintf("%d bytes", *q.Bytes))
			}
			quota = strings.Join(parts, ", ")
		}
		rows = append(rows, []string{p.Name, clusters, namespacesText(p.Export), namespacesText(p.Route), quota})
	}
	return (&table{w: w}).print(rows...)
}

func namespacesText(n *policy.Namespaces) string {
	var parts []string
	switch {
	case n == nil:
		return "-"
	case n.Allow != nil && len(n.Allow) == 0:
		parts = append(parts, "none")
	case n.Allow != nil:
		parts = append(parts, strings.Join(n.Allow, ","))
	}
	if len(n.Deny) > 0 {
		parts = append(parts, "not "+strings.Join(n.Deny, ","))
	}
	return strings.Join(parts, ", ")
}

func newPolicyDelete(cfg Config) *cobra.Command {
	conn := connection{getenv: cfg.Getenv}
	cmd := &cobra.Command{
		Use: "delete NAME...", Short: "Remove policies: all or none",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cc, end, err := conn.connect()
			if err != nil {
				return err
			}
			defer end()
			if _, err := causewayv1.NewAdministrationClient(cc).DeletePolicies(cmd.Context(), &causewayv1.DeletePoliciesRequest{Names: args}); err != nil {
				return err
			}
			for _, name := range args {
				if _, err := fmt.Fprintf(cfg.Out, "policy %s deleted\n", name); err != nil {
					return err
				}
			}
			return nil
		},
	}
	conn.addFlags(cmd)
	return cmd
}
