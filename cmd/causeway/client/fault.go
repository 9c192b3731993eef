package client

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

func newFault(cfg Config) *cobra.Command {
	conn := connection{getenv: cfg.Getenv}
	var clear bool
	cmd := &cobra.Command{
		Use:   "fault [TARGET]",
		Short: "Break a part of a running `causeway up` on purpose, or mend it",
		Long: `Break a part of a running "causeway up" on purpose, and see what becomes of
traffic and health; --clear mends it. Without a target: list what can be broken.

Only "causeway up" can be broken so; agents in real clusters have no such thing.`,
		Example: `  causeway fault
  causeway fault store            # no data plane may notice
  causeway fault store --clear
  causeway fault agent/west && causeway fault crossing/west    # west is found dead`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cc, end, err := conn.connect()
			if err != nil {
				return err
			}
			defer end()
			trial := causewayv1.NewTrialClient(cc)
			if len(args) == 1 {
				_, err := trial.SetFault(cmd.Context(), &causewayv1.SetFaultRequest{Target: args[0], Active: !clear})
				return err
			}
			if clear {
				return errors.New("--clear needs a target; `causeway fault` lists them")
			}
			answer, err := trial.ListFaults(cmd.Context(), &causewayv1.ListFaultsRequest{})
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cfg.Out, 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "TARGET\tBROKEN\tBREAKING IT")
			for _, f := range answer.GetFaults() {
				broken := "no"
				if f.GetActive() {
					broken = "yes"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", f.GetTarget(), broken, f.GetDescription())
			}
			return w.Flush()
		},
	}
	conn.addFlags(cmd)
	cmd.Flags().BoolVar(&clear, "clear", false, "mend the target")
	return cmd
}
