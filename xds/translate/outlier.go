package translate

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

const (
	// outlierFailures in a row put an endpoint out.
	outlierFailures = 5
	// outlierShare of a backend's endpoints, in percent, are put out at most: of one
	// endpoint none, of two or three one. What is left gets the traffic, be it ill.
	outlierShare = 50
	// An endpoint is out for outlierTime times the number of times that it was put
	// out of late, for at most outlierLongest.
	outlierTime     = 5 * time.Second
	outlierLongest  = time.Minute
	outlierInterval = time.Second // how often that is looked at
)

// outliers puts endpoints out that fail, for a while, by what is seen of the
// requests and connections to them (passive checks).
//
// Endpoints that are reached directly fail by connections that come to nothing,
// by requests that time out, and by 502, 503 and 504, which say that whatever
// speaks for the endpoint could not reach it or that it can't work; other
// statuses are an application's answers.
//
// A crossing gateway stands for all endpoints of a cluster, often with a single
// address: the answers of one ill endpoint among them say nothing about it.
// So where there is one (crossings), only failures before a request went out
// count, which is told by split_external_local_origin_errors: a connection pool
// that gets a request to the gateway, over mTLS, sets its count back to zero.
// When the gateway itself can't be reached, its cluster's share overflows to the
// others as it does from endpoints that are not ready.
func outliers(crossings bool) *clusterv3.OutlierDetection {
	out := &clusterv3.OutlierDetection{
		Interval:                 dur(outlierInterval),
		BaseEjectionTime:         dur(outlierTime),
		MaxEjectionTime:          dur(outlierLongest),
		MaxEjectionPercent:       u32(outlierShare),
		EnforcingConsecutive_5Xx: u32(0),
		EnforcingSuccessRate:     u32(0),
	}
	if crossings {
		out.SplitExternalLocalOriginErrors = true
		out.ConsecutiveLocalOriginFailure = u32(outlierFailures)
		out.EnforcingConsecutiveLocalOriginFailure = u32(100)
		out.EnforcingLocalOriginSuccessRate = u32(0)
		return out
	}
	out.ConsecutiveGatewayFailure = u32(outlierFailures)
	out.EnforcingConsecutiveGatewayFailure = u32(100)
	return out
}
