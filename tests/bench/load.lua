-- Sends requests that were made beforehand, one after the other, so that making them takes no time from the servers.
-- The same for all of them.

local requests, last = {}, 0

-- The file holds, for each request, its length on a line and the request.
function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   local length = file:read("*n")
   while length do
      file:read(1)
      requests[#requests + 1] = file:read(length)
      length = file:read("*n")
   end
   file:close()
   last = #requests - 1 -- wrk asks for a request that it only looks at; after that comes the first
end

function request()
   last = last % #requests + 1
   return requests[last]
end

-- Times are in microseconds.
function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests":%d,"duration":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,'
         .. '"p50":%d,"p99":%d,"p999":%d,"max":%d}\n',
      summary.requests, summary.duration, errors.connect, errors.read, errors.write, errors.status, errors.timeout,
      latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
