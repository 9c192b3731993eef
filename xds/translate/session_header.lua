
function envoy_on_request(handle)
  local headers = handle:headers()
  local token = headers:get(name)
  if not token then
    return
  end
  local address = known(handle, token)
  if address then
    headers:replace(name, address)
  else
    headers:remove(name)
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local address = headers:get(name)
  if address then
    headers:replace(name, made(handle, address))
  end
end
